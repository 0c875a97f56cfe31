# shellcheck shell=bash
# What the scripts of this folder share: options, names, slices, running or only printing.
# It is sourced, and is no program.

if [ "${BASH_VERSINFO[0]}${BASH_VERSINFO[1]}" -lt 44 ]; then
    echo "$0: error: bash $BASH_VERSION is too old; use 4.4 or newer (macOS: brew install bash)" >&2
    exit 2
fi

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
ME=launch/$(basename "$0")
export HERE ROOT

declare -A OPT=()
declare -a ENVS=() SECRETS=() PROGRAM=() GIVEN=()
ACTION='' NAME=''

# What is wrong and what to do, in one line.
fail() {
    printf '%s: error: %s\n' "$ME" "$*" >&2
    exit 2
}

# The comment at the top of the script is its help.
show_help() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

# parse ACTIONS OPTIONS "$@": ACTION NAME --option value ... -- PROGRAM ...
#
# OPTIONS are words: "slice=" takes a value, "spot" takes none. Values go to OPT; --env and
# --secret may be repeated and go to ENVS and SECRETS; the names of all go to GIVEN. project, zone, cluster, image and
# namespace may come from the environment instead, as HOPE_PROJECT and so on.
parse() {
    local actions=" $1 " known=" $2 dry-run " option value variable
    shift 2
    refuse_secrets "$@"
    while [ $# -gt 0 ]; do
        case $1 in
            --) PROGRAM=("${@:2}") && break ;;
            -h | --help) show_help && exit 0 ;;
            --*)
                option=${1#--} value=''
                if [[ $option == *=* ]]; then
                    value=${option#*=} option=${option%%=*}
                    [[ $known == *" $option= "* ]] || refuse_option "$option" "$known"
                elif [[ $known == *" $option= "* ]]; then
                    [ $# -ge 2 ] || fail "--$option needs a value"
                    value=$2
                    shift
                elif [[ $known == *" $option "* ]]; then
                    value=yes
                else
                    refuse_option "$option" "$known"
                fi
                [ -n "$value" ] || fail "--$option is empty"
                GIVEN+=("$option")
                case $option in
                    env) ENVS+=("$value") ;;
                    secret) SECRETS+=("$value") ;;
                    *) OPT[$option]=$value ;;
                esac
                ;;
            *)
                if [ -z "$ACTION" ]; then
                    [[ $actions == *" $1 "* ]] || fail "cannot '$1'; choose one of:$actions(--help says more)"
                    ACTION=$1
                elif [ -z "$NAME" ]; then
                    check_name "$1"
                    NAME=$1
                else
                    fail "'$1' is one word too many; what is to run comes after --"
                fi
                ;;
        esac
        shift
    done
    [ -n "$ACTION" ] || fail "say what to do, one of:$actions(--help says more)"
    [ -n "$NAME" ] || fail "say which: $ME $ACTION NAME (--help says more)"
    for option in project zone cluster image namespace; do
        variable=HOPE_${option^^}
        if [[ $known == *" $option= "* ]] && [ -z "${OPT[$option]:-}" ] && [ -n "${!variable:-}" ]; then
            OPT[$option]=${!variable}
        fi
    done
    check_options
}

refuse_option() {
    local listed
    if [[ $2 == *" $1= "* || $2 == *" $1 "* ]]; then
        fail "--$1 takes no value"
    fi
    listed=$(tr ' ' '\n' <<<"$2" | sed -n 's/\(..*\)/--\1/p' | tr '\n' ' ')
    fail "there is no option --$1; there are: ${listed% }"
}

# only OPTIONS: those that this action takes, of the ones that the script knows. What comes
# from the environment is for whichever action takes it.
only() {
    local option
    for option in "${GIVEN[@]}"; do
        [[ " $1 dry-run " == *" $option "* ]] || fail "$ACTION takes no --$option (--help says more)"
    done
}

# What a value has to look like, whichever script takes it.
check_options() {
    local option entry
    for option in slices nodes gpus restarts grace points at-once; do
        [[ ${OPT[$option]:-1} =~ ^[0-9]{1,6}$ ]] || fail "--$option ${OPT[$option]}: give a whole number"
    done
    for option in slices nodes points at-once grace; do
        [ "$((10#${OPT[$option]:-1}))" -ge 1 ] || fail "--$option ${OPT[$option]}: give at least 1"
    done
    for option in image bucket claim project zone cluster namespace queue service-account; do
        [[ ${OPT[$option]:-} != *[[:space:]]* ]] || fail "--$option '${OPT[$option]}' has a blank in it"
    done
    [[ ${OPT[bucket]:-} != gs://* ]] || fail "--bucket ${OPT[bucket]}: give the name without gs://"
    for entry in "${ENVS[@]}"; do
        [[ $entry =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || fail "--env '$entry': write NAME=VALUE"
        if secret_name "${entry%%=*}"; then
            fail "--env ${entry%%=*}=...: a secret does not belong on a command line; see --secret in launch/README.md"
        fi
    done
    for entry in "${SECRETS[@]}"; do
        [[ $entry =~ ^[A-Za-z_][A-Za-z0-9_]*=[a-z0-9A-Z._/-]+$ ]] ||
            fail "--secret: write VARIABLE=NAME, the name of a stored secret and not its value"
    done
}

secret_name() { [[ ${1^^} =~ (KEY|TOKEN|SECRET|PASSWORD)$ ]]; }

# Everybody on a machine can read command lines, and shells keep them.
refuse_secrets() {
    local variable word value
    while read -r variable; do
        secret_name "$variable" || continue
        value=${!variable}
        [ "${#value}" -ge 8 ] || continue
        for word in "$@"; do
            if [[ $word == *"$value"* ]]; then
                fail "the value of \$$variable is on the command line; pass its name with --secret (launch/README.md)"
            fi
        done
    done < <(compgen -e)
}

# Names end up in names of pods and machines: DNS-1123 labels.
check_name() {
    [[ $1 =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
        fail "name '$1': use small letters, digits and dashes, and begin with a letter"
    [ "${#1}" -le 63 ] || fail "name '$1' has ${#1} characters; use at most 63"
}

# need OPTION WHY: an option that this action cannot do without.
need() { [ -n "${OPT[$1]:-}" ] || fail "$ACTION needs --$1: $2"; }

# need_program TOOL HOW: a program on PATH, unless commands are only printed.
need_program() {
    [ -n "${OPT[dry-run]:-}" ] || command -v "$1" >/dev/null || fail "there is no $1 on PATH; $2"
}

# Everything about a slice comes from hope_jax/parallel/slices.py, which needs Python alone:
# SLICE, TOPOLOGY, CHIPS, HOSTS, CHIPS_PER_HOST, DEVICES, ACCELERATOR, MACHINE, VM_TYPE, VM_RUNTIME.
slice_facts() {
    local facts
    need slice "a product name such as v5e-64; launch/README.md has a table"
    facts=$(python3 "$ROOT/hope_jax/parallel/slices.py" "${OPT[slice]}" 2>&1) || fail "--slice: $facts"
    eval "$facts"
}

# check_program PROCESSES WHERE [MOUNT]: a `hope train` that could only fail, or lose what it
# does. With MOUNT, nothing but what is below it outlives the machines.
check_program() {
    [ ${#PROGRAM[@]} -gt 0 ] || fail "say what to run after --, e.g. -- hope train --config FILE"
    [ "${PROGRAM[0]}" = hope ] || return 0
    local words=" ${PROGRAM[*]} " place
    case ${PROGRAM[1]:-} in
        train | sweep)
            if [[ $words != *" --workdir"[\ =]* ]]; then
                fail "hope ${PROGRAM[1]} needs --workdir here: $2"
            fi
            place=$(workdir)
            if [ -n "${3:-}" ] && [[ $place/ != "$3"/* || $place/ == */../* ]]; then
                fail "--workdir $place is not below $3: $2"
            fi
            ;;
    esac
    if [ "${PROGRAM[1]:-}" = train ] && [ "$1" -gt 1 ] && [[ $words != *" --distributed "* ]]; then
        fail "every process would train alone; add --distributed to hope train"
    fi
}

# The work folder of the program: the last one that is given, as the program takes it.
workdir() {
    local word before='' found=''
    for word in "${PROGRAM[@]}"; do
        [[ $before != --workdir ]] || found=$word
        [[ $word != --workdir=* ]] || found=${word#*=}
        before=$word
    done
    printf '%s' "$found"
}

# Words so that a shell reads the same words again; spaces as quotes, not backslashes.
quoted() {
    local word out=''
    for word in "$@"; do
        if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
            out+=" $word"
        elif [[ $word == *\'* && $word != *[\"\$\`\\!]* ]]; then
            out+=" \"$word\""
        else
            out+=" '${word//\'/\'\\\'\'}'"
        fi
    done
    printf '%s' "${out# }"
}

# run COMMAND ...: run it, or with --dry-run print it as a shell would take it.
run() {
    if [ -n "${OPT[dry-run]:-}" ]; then
        quoted "$@"
        echo
    else
        "$@"
    fi
}

# run_with TEXT COMMAND ...: the same, with TEXT on standard input.
run_with() {
    if [ -n "${OPT[dry-run]:-}" ]; then
        printf "%s <<'END'\n%s\nEND\n" "$(quoted "${@:2}")" "$1"
    else
        "${@:2}" <<<"$1"
    fi
}
