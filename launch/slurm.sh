#!/usr/bin/env bash
# A run on GPUs under Slurm: one process per GPU, which JAX brings together.
#
#   launch/slurm.sh run NAME [options] -- PROGRAM ...
#   launch/slurm.sh status|logs|delete NAME
#
#   run      submit launch/slurm_job.sh, with the environment of this shell: activate the
#            environment with the package (pip install ".[cuda]") first
#   status   jobs of this name
#   logs     what they print, as it comes
#   delete   stop: what is running saves and ends, what waits is taken out
#
#   --nodes N             machines (default 1)
#   --gpus N              of each machine (default 8; of a sweep's point, 1)
#   --partition, --account, --time HH:MM:SS
#                         as sbatch has them. The time is of one part of a run: before it is
#                         over the run saves, queues again and goes on
#   --grace SECONDS       before the end of --time, to save in (default 300)
#   --restarts N          how often to queue again after a process or a machine was lost
#                         (default 20)
#   --array INDICES       an array job, for launch/sweep.sh
#   --dry-run             print the commands and run nothing
#
# A job has this shell's environment, secrets too; none of it is on a command line.
#
# examples:
#   launch/slurm.sh run hope-1b --nodes 4 --gpus 8 --partition gpu --time 24:00:00 -- \
#       hope train --config experiments/hope_1b.py --set data.path=/shared/data/web \
#       --workdir /shared/runs/hope-1b --distributed
#   launch/slurm.sh logs hope-1b
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

parse "run status logs delete" \
    "nodes= gpus= partition= account= time= grace= restarts= array=" "$@"
how="run this on a login node of the cluster"

case $ACTION in
    run)
        nodes=$((10#${OPT[nodes]:-1}))
        gpus=$((10#${OPT[gpus]:-$([ -n "${OPT[array]:-}" ] && echo 1 || echo 8)}))
        tasks=$((gpus > 0 ? gpus : 1))
        # A point of a sweep is one process, which uses all GPUs it sees.
        if [ "${PROGRAM[1]:-}" = sweep ] || [ -n "${OPT[array]:-}" ]; then
            [ "$nodes" -eq 1 ] || fail "--nodes $nodes: a point of a sweep runs on one machine"
            tasks=1
        fi
        check_program $((nodes * tasks)) "name a folder that all machines see"
        need_program sbatch "$how"
        log=$NAME-%j.log
        [ -z "${OPT[array]:-}" ] || log=$NAME-%A-%a.log
        options=(--job-name="$NAME" --nodes="$nodes" --ntasks-per-node="$tasks")
        [ "$gpus" -eq 0 ] || options+=(--gpus-per-node="$gpus")
        for option in partition account time array; do
            [ -z "${OPT[$option]:-}" ] || options+=("--$option=${OPT[$option]}")
        done
        options+=(--signal="B:USR1@$((10#${OPT[grace]:-300}))" --requeue --open-mode=append)
        options+=(--output="$log" --export=ALL)
        run sbatch "${options[@]}" "$HERE/slurm_job.sh" "$((10#${OPT[restarts]:-20}))" \
            "$HERE/env.sh" "${PROGRAM[@]}"
        ;;
    status)
        need_program squeue "$how"
        run squeue --me --name="$NAME"
        ;;
    logs)
        mapfile -t logs < <(compgen -G "$NAME-[0-9]*.log" || true)
        [ ${#logs[@]} -gt 0 ] || [ -n "${OPT[dry-run]:-}" ] ||
            fail "there is no $NAME-*.log here; go to where the run was submitted"
        [ ${#logs[@]} -gt 0 ] || logs=("$NAME-JOB.log")
        run tail -n 100 -F "${logs[@]}"
        ;;
    delete)
        need_program scancel "$how"
        # USR2 to launch/slurm_job.sh: Slurm's own way leaves 30 seconds to save in.
        run scancel --me --name="$NAME" --state=RUNNING --batch --signal=USR2
        run scancel --me --name="$NAME" --state=PENDING
        ;;
esac
