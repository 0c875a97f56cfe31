#!/usr/bin/env bash
# A run on TPU VMs, through queued resources.
#
#   launch/tpu_vm.sh watch  NAME --slice SLICE --zone ZONE [options] -- PROGRAM ...
#   launch/tpu_vm.sh create NAME --slice SLICE --zone ZONE [options]
#   launch/tpu_vm.sh setup  NAME --zone ZONE [--bucket BUCKET | --nfs HOST:/SHARE]
#   launch/tpu_vm.sh run    NAME --zone ZONE [options] -- PROGRAM ...
#   launch/tpu_vm.sh status|logs|stop|delete NAME --zone ZONE
#
#   create   queue for the machines
#   setup    copy the last commit of this folder to all of them, install it and mount the
#            storage at /mnt/work; may be repeated, also after a new commit
#   run      start the program on all machines as a service of systemd: it goes on without this
#            shell, begins again when a process is lost and after a reboot, and is told with
#            SIGTERM to save when its machine is shut down
#   status   the machines, and how the run is on each of them
#   logs     what the first machine prints, as it comes
#   stop     SIGTERM, on which `hope train` saves; `run` goes on from there
#   delete   give the machines back, with all that is on their disks
#   watch    all of it: create, setup, run, and again whenever the machines were taken away,
#            until the program has ended; leave it open on a machine that stays
#
#   --slice SLICE     e.g. v5e-64 or v5p-256; the table is in launch/README.md
#   --slices N        so many of them (default 1)
#   --zone, --project where; HOPE_ZONE and HOPE_PROJECT stand for them
#   --spot            cheaper, and may be taken away at any time
#   --reserved        from a reservation
#   --runtime VERSION of the TPU software (default: that of the generation)
#   --service-account EMAIL
#                     whose rights the machines have
#   --bucket BUCKET   a Cloud Storage bucket to mount, through gcsfuse
#   --nfs HOST:/SHARE or a Filestore (NFS) share
#   --env NAME=VALUE  a variable; may be repeated
#   --secret VARIABLE=SECRET[/VERSION]
#                     a variable with what Secret Manager holds; the machines fetch it themselves
#   --grace SECONDS   from SIGTERM to SIGKILL (default 300)
#   --every SECONDS   how often `watch` looks (default 60)
#   --dry-run         print the commands and run nothing
#
# gcloud reaches many machines with the key in ssh-agent: ssh-add ~/.ssh/google_compute_engine
#
# examples:
#   export HOPE_ZONE=us-west4-a HOPE_PROJECT=my-project
#   launch/tpu_vm.sh create hope-1b --slice v5e-64 --spot
#   launch/tpu_vm.sh setup hope-1b --bucket my-bucket
#   launch/tpu_vm.sh run hope-1b -- hope train --config experiments/hope_1b.py --distributed \
#       --set data.path=/mnt/work/data/web --workdir /mnt/work/runs/hope-1b
#   launch/tpu_vm.sh logs hope-1b
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

parse "watch create setup run status logs stop delete" \
    "slice= slices= zone= project= spot reserved runtime= service-account= bucket= nfs= env= secret= grace= every=" "$@"
need zone "where the machines are, e.g. us-west4-a"
[ -z "${OPT[bucket]:-}" ] || [ -z "${OPT[nfs]:-}" ] ||
    fail "--bucket and --nfs both name what is mounted at /mnt/work; give one of them"
[[ ${OPT[every]:-60} =~ ^[0-9]{1,5}$ ]] || fail "--every ${OPT[every]}: give whole seconds"
need_program gcloud "install the Google Cloud CLI and log in (launch/first_pod_run.md)"
queued=(gcloud compute tpus queued-resources)
where=(--zone="${OPT[zone]}")
[ -z "${OPT[project]:-}" ] || where+=(--project="${OPT[project]}")
all=(--node=all --worker=all --batch-size=all)
# shellcheck disable=SC2034 # by name, in on
first=(--node=0 --worker=0)
worker="bash hope/src/launch/worker.sh"

# on MACHINES COMMAND: run it there; MACHINES is the name of an array.
on() {
    local -n machines=$1
    run "${queued[@]}" ssh "$NAME" "${where[@]}" "${machines[@]}" --command="$2"
}

vm_facts() {
    slice_facts
    [ -n "$VM_TYPE" ] ||
        fail "there are no TPU VMs of ${SLICE%%-*}, only GKE and Compute Engine; use launch/jobset.sh"
}

create() {
    local options=(--accelerator-type="$VM_TYPE" --runtime-version="${OPT[runtime]:-$VM_RUNTIME}")
    local slices=$((10#${OPT[slices]:-1}))
    if [ "$slices" -gt 1 ]; then
        options+=(--node-count="$slices" --node-prefix="$NAME")
    else
        options+=(--node-id="$NAME")
    fi
    [ -z "${OPT[spot]:-}" ] || options+=(--spot)
    [ -z "${OPT[reserved]:-}" ] || options+=(--reserved)
    [ -z "${OPT[service-account]:-}" ] || options+=(--service-account="${OPT[service-account]}")
    # What the machines may do, their service account says.
    options+=(--scopes=https://www.googleapis.com/auth/cloud-platform)
    run "${queued[@]}" create "$NAME" "${where[@]}" "${options[@]}"
}

setup() {
    local folder status=0 mount=()
    for option in bucket nfs; do
        [ -z "${OPT[$option]:-}" ] || mount+=("--$option" "${OPT[$option]}")
    done
    git -C "$ROOT" rev-parse --quiet --verify HEAD >/dev/null ||
        fail "$ROOT is no git repository; setup copies its last commit"
    [ -z "$(git -C "$ROOT" status --porcelain)" ] || echo "$ME: what is not committed stays here" >&2
    folder=$(mktemp -d)
    run git -C "$ROOT" archive --format=tar.gz --output="$folder/hope-src.tar.gz" HEAD &&
        run "${queued[@]}" scp "$folder/hope-src.tar.gz" "$NAME:" "${where[@]}" "${all[@]}" &&
        on all "rm -rf hope/src && mkdir -p hope/src && tar -xzf hope-src.tar.gz -C hope/src && $worker setup $NAME $(quoted "${mount[@]}")" ||
        status=$?
    rm -rf "$folder"
    return "$status"
}

start() {
    local entry options=(--grace "$((10#${OPT[grace]:-300}))")
    for entry in "${ENVS[@]}"; do options+=(--env "$entry"); done
    for entry in "${SECRETS[@]}"; do options+=(--secret "$entry"); done
    on all "$worker run $NAME $(quoted "${options[@]}" -- "${PROGRAM[@]}")"
}

remove() { run "${queued[@]}" delete "$NAME" "${where[@]}" --force --quiet; }

# The state of the queued resource; nothing if there is none.
state() {
    run "${queued[@]}" list "${where[@]}" --filter="name~/$NAME\$" --format="value(state.state)"
}

# One word for the run on all machines, or "unreachable".
run_state() {
    local said
    said=$(on all "$worker state $NAME") || { echo unreachable && return; }
    for word in absent failed running finished; do
        if grep -q "^state $NAME $word$" <<<"$said"; then
            echo $word
            return
        fi
    done
    echo absent
}

watch() {
    local now before=''
    while true; do
        # No answer is not the answer that there is nothing.
        now=$(state) || now=UNKNOWN
        [ "$now" != ACTIVE ] || now="ACTIVE, run $(run_state)"
        [ "$now" = "$before" ] || echo "$(date '+%F %T') $NAME: ${now:-not there}"
        before=$now
        case $now in
            '') create || echo "$NAME: gcloud does not create it; asking again" ;;
            *absent) setup && start || echo "$NAME: a machine does not answer; asking again" ;;
            *finished) return 0 ;;
            *failed) fail "the program failed on a machine, and again each time; see: $ME logs $NAME" ;;
            FAILED | SUSPENDED) remove || true ;;
        esac
        sleep "${OPT[every]:-60}"
    done
}

case $ACTION in
    create)
        vm_facts
        create
        ;;
    setup) setup ;;
    run)
        # How many machines there are only they know; one that is alone does not mind.
        check_program 2 "what is written elsewhere than below /mnt/work is lost with its machine" /mnt/work
        start
        ;;
    watch)
        vm_facts
        check_program $((HOSTS * ${OPT[slices]:-1})) "what is written elsewhere than below /mnt/work is lost with its machine" /mnt/work
        if [ -n "${OPT[dry-run]:-}" ]; then
            state && create && setup && start
            on all "$worker state $NAME"
        else
            watch
        fi
        ;;
    status)
        run "${queued[@]}" describe "$NAME" "${where[@]}" --format="yaml(name,state)"
        on all "$worker state $NAME"
        ;;
    logs) on first "$worker logs $NAME" ;;
    stop) on all "$worker stop $NAME" ;;
    delete) remove ;;
esac
