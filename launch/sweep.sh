#!/usr/bin/env bash
# Many runs from one file: every point of `hope sweep FILE`, here or as an array of jobs.
#
#   launch/sweep.sh local NAME [--at-once N] -- hope sweep FILE [options of hope sweep]
#   launch/sweep.sh gke   NAME --slice SLICE --image IMAGE [options] -- hope sweep FILE ...
#   launch/sweep.sh slurm NAME [options] -- hope sweep FILE ...
#   launch/sweep.sh status|delete NAME [--namespace NAMESPACE]      of a sweep on GKE
#
# A point is one process on one machine. Points that are finished are skipped and stopped ones
# go on, so any of these may be repeated, and with --workdir on storage that all machines see,
# any may go on with what another began. `hope report DIR` compares them. A point that needs
# several hosts is a run: launch/jobset.sh.
#
#   --points N       number of points or, with --tune, of rows (default: `hope sweep` counts,
#                    which needs the package here)
#   --at-once N      so many at a time (default: local 1, gke 4, slurm all)
#   --dry-run        print the commands and run nothing
#
# gke: one Job whose pods have an index each. Options as for launch/jobset.sh: --slice of one
# host, such as v5e-8, --image, --claim or --bucket, --service-account, --restarts of each point
# (default 10), --grace, --spot, --queue, --env, --secret, --namespace.
#
# slurm: an array job. Options as for launch/slurm.sh: --gpus of each point (default 1),
# --partition, --account, --time, --restarts, --grace.
#
# examples:
#   launch/sweep.sh local wikitext --at-once 2 -- hope sweep experiments/optimizers/wikitext.py \
#       --set data.path=data/wikitext-2 --workdir runs/wikitext
#   launch/sweep.sh gke wikitext --slice v5e-1 --image IMAGE --claim work --at-once 8 -- \
#       hope sweep experiments/optimizers/wikitext.py --workdir /work/runs/wikitext \
#       --set data.path=/work/data/wikitext-2
#   launch/sweep.sh slurm wikitext --gpus 1 --at-once 8 --partition gpu -- \
#       hope sweep experiments/optimizers/wikitext.py --workdir /shared/runs/wikitext \
#       --set data.path=/shared/data/wikitext-2
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

parse "local gke slurm status delete" \
    "points= at-once= slice= image= claim= bucket= service-account= restarts= grace= spot queue= env= secret= namespace= gpus= partition= account= time=" "$@"
kubectl=(kubectl)
[ -z "${OPT[namespace]:-}" ] || kubectl+=(--namespace "${OPT[namespace]}")

check_sweep() {
    local word
    [ "${PROGRAM[0]:-} ${PROGRAM[1]:-}" = "hope sweep" ] ||
        fail "after -- comes: hope sweep FILE, and its options"
    for word in "${PROGRAM[@]}"; do
        case ${word%%=*} in
            --list | --count | --index | --local) fail "leave out ${word%%=*}: $ME says which points run where" ;;
        esac
    done
}

points() {
    if [ -n "${OPT[points]:-}" ]; then
        echo "$((10#${OPT[points]}))"
        return
    fi
    command -v "${PROGRAM[0]}" >/dev/null ||
        fail "there is no hope on PATH to count the points; install the package, or give --points N"
    "${PROGRAM[@]}" --count || fail "hope sweep could not count the points"
}

# Options of this script that another one takes too.
handed_on() {
    local option
    for option in "$@"; do
        [ -z "${OPT[$option]:-}" ] || printf '%s\0' "--$option=${OPT[$option]}"
    done
}

rendered() {
    local count=$1 entry options=()
    # The index is a variable of the pod: a shell there has to read it.
    # shellcheck disable=SC2016
    local command=(bash -c 'exec "$@" --index "$JOB_COMPLETION_INDEX"' point "${PROGRAM[@]}")
    for entry in "${ENVS[@]}"; do options+=(--env "$entry"); done
    for entry in "${SECRETS[@]}"; do options+=(--secret "$entry"); done
    python3 "$HERE/render.py" "$HERE/sweep.yaml" "${options[@]}" \
        NAME="$NAME" QUEUE="${OPT[queue]:-}" POINTS:="$count" \
        AT_ONCE:="$((10#${OPT[at-once]:-4}))" RESTARTS:="$((10#${OPT[restarts]:-10}))" \
        CHIPS:="$CHIPS_PER_HOST" ACCELERATOR="$ACCELERATOR" TOPOLOGY="$TOPOLOGY" \
        IMAGE="${OPT[image]}" GRACE:="$((10#${OPT[grace]:-600}))" SPOT="${OPT[spot]:-}" \
        CLAIM="${OPT[claim]:-}" BUCKET="${OPT[bucket]:-}" ACCOUNT="${OPT[service-account]:-}" \
        -- "${command[@]}"
}

case $ACTION in
    local)
        only "at-once"
        check_sweep
        need_program hope "install the package: pip install ."
        run "${PROGRAM[@]}" --local "${OPT[at-once]:-1}"
        ;;
    gke)
        only "points at-once slice image claim bucket service-account restarts grace spot queue env secret namespace"
        check_sweep
        slice_facts
        need image "one that launch/Dockerfile has built"
        [ "$HOSTS" -eq 1 ] || fail "$SLICE has $HOSTS hosts and a point runs on one; use up to 8 chips of v5e or v6e, or 4 of others"
        check_program 1 "what is written elsewhere than below /work is lost" /work
        [ -n "${OPT[claim]:-}${OPT[bucket]:-}" ] || fail "give --claim or --bucket: without it there is no /work"
        [ -z "${OPT[claim]:-}" ] || [ -z "${OPT[bucket]:-}" ] || fail "--claim and --bucket both name what is mounted at /work; give one of them"
        # A pod is called NAME-INDEX-xxxxx.
        [ ${#NAME} -le 50 ] || fail "name '$NAME' is too long for pods; use at most 50 characters"
        need_program kubectl "install it, and point it to the cluster (launch/first_pod_run.md)"
        count=$(points)
        job=$(rendered "$count")
        run_with "$job" "${kubectl[@]}" apply -f -
        ;;
    slurm)
        only "points at-once gpus partition account time restarts grace"
        check_sweep
        count=$(points)
        array=0-$((count - 1))
        [ -z "${OPT[at-once]:-}" ] || array+=%${OPT[at-once]}
        mapfile -d '' options < <(handed_on gpus partition account time restarts grace)
        [ -z "${OPT[dry-run]:-}" ] || options+=(--dry-run)
        exec "$HERE/slurm.sh" run "$NAME" --array="$array" "${options[@]}" -- "${PROGRAM[@]}"
        ;;
    status)
        only "namespace"
        need_program kubectl "install it, and point it to the cluster (launch/first_pod_run.md)"
        run "${kubectl[@]}" get job "$NAME" -o wide
        run "${kubectl[@]}" get pods --selector "batch.kubernetes.io/job-name=$NAME" -o wide
        ;;
    delete)
        only "namespace"
        need_program kubectl "install it, and point it to the cluster (launch/first_pod_run.md)"
        run "${kubectl[@]}" delete job "$NAME"
        ;;
esac
