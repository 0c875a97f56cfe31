#!/usr/bin/env bash
# What a Slurm job does: launch/slurm_job.sh RESTARTS PROGRAM ...; launch/slurm.sh submits it.
#
# All tasks run PROGRAM; in an array job, with `--index` and the index. Then
#
#   USR1 (Slurm, before the time is over)    they save, and the job queues again
#   TERM (Slurm, to make room for others)    they save; Slurm queues the job again
#   USR2 (launch/slurm.sh delete)            they save, and that is the end
#   one is killed or loses another           the job queues again, RESTARTS times at most
#   one ends with status 2, for a mistake    that is the end
#
#   --dry-run    print the commands and run nothing
set -euo pipefail

begin=()
case ${1:---help} in
    -h | --help)
        awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
        exit 0
        ;;
    --dry-run)
        begin=(printf '%q ')
        SLURM_JOB_ID=${SLURM_JOB_ID:-JOB}
        shift
        ;;
esac
restarts=$1
shift
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || set -- "$@" --index "$SLURM_ARRAY_TASK_ID"
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}}
job=${job:-${SLURM_JOB_ID:?this is started by sbatch}}

told=''
signals=0
step=''
# shellcheck disable=SC2329 # the traps call it
stop() {
    told=$1
    signals=$((signals + 1))
    echo "slurm_job.sh: $1 at $(date +%T), telling the processes to save"
    [ -z "$step" ] || kill -TERM "$step" 2>/dev/null || true # srun hands it to all tasks
}
trap 'stop USR1' USR1
trap 'stop USR2' USR2
trap 'stop TERM' TERM

# Every task sees all GPUs of its machine, and JAX takes the one of its number.
"${begin[@]}" srun --gpu-bind=none --wait=600 "$@" &
step=$!
[ -z "$told" ] || stop "$told" # before there was a step to tell
status=127
while true; do # a signal ends `wait`, not the step
    before=$signals
    code=0
    wait "$step" || code=$?
    # 127: it had ended, and its status is known, when the signal came
    [ "$code" -eq 127 ] && [ "$signals" -gt 0 ] || status=$code
    [ "$signals" -ne "$before" ] || break
done

if [ "$told" = USR1 ]; then
    "${begin[@]}" scontrol requeue "$job"
elif [ -z "$told" ] && [ "$status" -ne 0 ] && [ "$status" -ne 2 ] &&
    [ "${SLURM_RESTART_COUNT:-0}" -lt "$restarts" ]; then
    echo "slurm_job.sh: ended with status $status; beginning again (${SLURM_RESTART_COUNT:-0} of $restarts before)"
    "${begin[@]}" scontrol requeue "$job"
fi
exit "$status"
