#!/usr/bin/env bash
# Settings of a machine that trains, then the program: launch/env.sh COMMAND ...
#
# The image, the TPU VMs and Slurm jobs start everything through it. A variable that is set
# already stays as it is.
#
#   JAX_COMPILATION_CACHE_DIR  folder for compiled programs that all hosts see: a run that is
#                              started again compiles nothing. Not set: none.
#   LIBTPU_INIT_ARGS           flags of the TPU compiler and runtime. Not set: its own.
set -euo pipefail

case ${1:---help} in
    -h | --help)
        awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
        exit 0
        ;;
    --dry-run)
        shift
        dry_run=yes
        ;;
esac

# What is printed is in the log at once, also when the process is killed.
export PYTHONUNBUFFERED=${PYTHONUNBUFFERED:-1}
# Programs that take less than a second to compile are not worth a file.
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-1}
# A host opens a file for every shard of the data, and more for checkpoints.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"

if [ -n "${dry_run:-}" ]; then
    export -p | grep -E 'PYTHONUNBUFFERED|JAX_|LIBTPU_'
    printf '%q ' "$@"
    echo
    exit 0
fi
# In place of this shell: signals reach the program, which saves on SIGTERM.
exec "$@"
