#!/usr/bin/env bash
# What launch/tpu_vm.sh has each TPU VM do. It is run there, from ~/hope/src.
#
#   launch/worker.sh setup NAME [--bucket BUCKET | --nfs HOST:/SHARE]
#   launch/worker.sh run NAME [--grace SECONDS] [--env NAME=VALUE] [--secret VARIABLE=SECRET] \
#       -- PROGRAM ...
#   launch/worker.sh state|logs|stop NAME
#
#   setup   Python 3.12 and the package in ~/hope/venv, and the storage at /mnt/work
#   run     write ~/hope/runs/NAME.sh and a service of systemd that runs it, and start that
#   state   one line: state NAME running|finished|failed|absent
#   logs    what the program printed, and prints
#   stop    SIGTERM, and after --grace seconds SIGKILL
#
#   --dry-run   print the commands and run nothing
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

MOUNT=/mnt/work
BASE=$HOME/hope
parse "setup run state logs stop" "bucket= nfs= grace= env= secret=" "$@"
unit=hope-$NAME
file=/etc/systemd/system/$unit.service

install_package() {
    # The system's Python is older than the package needs; uv brings one.
    run python3 -m pip install --user --quiet --upgrade uv
    run python3 -m uv venv --quiet --allow-existing --python 3.12 "$BASE/venv"
    run python3 -m uv pip install --quiet --python "$BASE/venv/bin/python" \
        --reinstall-package hope_jax "hope_jax[tpu,tensorboard] @ file://$BASE/src"
}

mount_storage() { # line of /etc/fstab
    if ! grep -qF " $MOUNT " /etc/fstab; then
        run sudo mkdir -p "$MOUNT"
        run_with "$1" sudo tee -a /etc/fstab
    fi
    mountpoint -q "$MOUNT" || run sudo mount "$MOUNT"
}

install_gcsfuse() {
    local place=https://packages.cloud.google.com/apt keyring=/usr/share/keyrings/cloud.google.asc
    command -v gcsfuse >/dev/null && return
    run sudo curl --fail --silent --show-error --output "$keyring" "$place/doc/apt-key.gpg"
    run_with "deb [signed-by=$keyring] $place gcsfuse-$(lsb_release -c -s) main" \
        sudo tee /etc/apt/sources.list.d/gcsfuse.list
    run sudo apt-get update --quiet
    run sudo apt-get install --quiet --yes gcsfuse
}

setup() {
    local options
    install_package
    if [ -n "${OPT[bucket]:-}" ]; then
        install_gcsfuse
        # A checkpoint is finished by renaming its folder, and machines have to see at once what
        # others have written.
        options=rw,_netdev,allow_other,implicit_dirs,rename_dir_limit=100000
        options+=,metadata_cache_ttl_secs=0,uid=$(id -u),gid=$(id -g)
        mount_storage "${OPT[bucket]} $MOUNT gcsfuse $options 0 0"
    elif [ -n "${OPT[nfs]:-}" ]; then
        run sudo apt-get install --quiet --yes nfs-common
        # nolock: a machine that was taken away cannot give its locks back.
        mount_storage "${OPT[nfs]} $MOUNT nfs rw,_netdev,hard,nolock 0 0"
    fi
}

# The program of the service. A secret is fetched by the machine when it begins.
script() {
    local entry secret
    echo '#!/usr/bin/env bash'
    echo 'set -euo pipefail'
    echo "cd $(quoted "$BASE/src")"
    echo "export PATH=$(quoted "$BASE/venv/bin"):\$PATH"
    for entry in "${ENVS[@]}"; do echo "export ${entry%%=*}=$(quoted "${entry#*=}")"; done
    for entry in "${SECRETS[@]}"; do
        secret=${entry#*=}
        echo "${entry%%=*}=\$(gcloud secrets versions access $(version "$secret") --secret=${secret%%/*})"
        echo "export ${entry%%=*}"
    done
    echo "exec launch/env.sh $(quoted "${PROGRAM[@]}")"
}

version() { if [[ $1 == */* ]]; then echo "${1#*/}"; else echo latest; fi; }

service() {
    cat <<END
[Unit]
Description=hope_jax run $NAME
After=network-online.target remote-fs.target
Wants=network-online.target
# A program that fails at once is given up after ten times.
StartLimitIntervalSec=3600
StartLimitBurst=10

[Service]
User=$(id -un)
ExecStart=/bin/bash $BASE/runs/$NAME.sh
RemainAfterExit=yes
Restart=on-failure
RestartSec=15
# A mistake stays one.
RestartPreventExitStatus=2
# SIGTERM to the first process, which hands it on.
KillMode=mixed
TimeoutStopSec=$((10#${OPT[grace]:-300}))
LimitNOFILE=65536
LimitMEMLOCK=infinity

[Install]
WantedBy=multi-user.target
END
}

begin() {
    [ ${#PROGRAM[@]} -gt 0 ] || fail "say what to run after --"
    run mkdir -p "$BASE/runs"
    run_with "$(script)" tee "$BASE/runs/$NAME.sh"
    run_with "$(service)" sudo tee "$file"
    run sudo systemctl daemon-reload
    run sudo systemctl enable --quiet "$unit"
    # Forgets that it failed, or ended, before.
    run sudo systemctl reset-failed "$unit" || true
    run sudo systemctl restart "$unit"
}

state() {
    local LoadState=not-found ActiveState='' SubState='' word
    eval "$(systemctl show "$unit" --property=LoadState,ActiveState,SubState)"
    case $LoadState/$ActiveState/$SubState in
        not-found/* | */inactive/*) word=absent ;;
        */failed/*) word=failed ;;
        */exited) word=finished ;;
        *) word=running ;;
    esac
    echo "state $NAME $word"
}

case $ACTION in
    setup) setup ;;
    run) begin ;;
    state) state ;;
    logs) run journalctl --unit="$unit" --output=cat --lines=200 --follow ;;
    stop)
        run sudo systemctl disable --quiet "$unit"
        run sudo systemctl stop "$unit"
        ;;
esac
