#!/usr/bin/env bash
# A run on GKE, as a JobSet: one Job per slice, one pod per host, all started again together
# when one is lost.
#
#   launch/jobset.sh render|apply NAME --slice SLICE --image IMAGE [options] -- PROGRAM ...
#   launch/jobset.sh status|logs|delete NAME [--namespace NAMESPACE]
#
#   render   print the JobSet
#   apply    start it, with the cluster that kubectl points to
#   status   the JobSet and its pods
#   logs     what the first host of the first slice prints, as it comes
#   delete   stop: SIGTERM, on which `hope train` saves, and after --grace SIGKILL.
#            `apply` of the same goes on from there
#
#   --slice SLICE            e.g. v5e-64, v5p-256, tpu7x-128 or v5p:4x4x12; launch/README.md
#   --slices N               so many of them (default 1); only copies of the weights (mesh.data)
#                            speak between slices
#   --image IMAGE            built with launch/Dockerfile
#   --claim CLAIM            a PersistentVolumeClaim (ReadWriteMany) to mount at /work
#   --bucket BUCKET          or a Cloud Storage bucket, through gcsfuse
#   --service-account NAME   of Kubernetes; the one that may use the bucket
#   --restarts N             how often all may begin again (default 100; lost hosts and spot nodes
#                            taken away count). Status 2, a mistake told by `hope`, is the end
#   --grace SECONDS          from SIGTERM to SIGKILL (default 600). On spot nodes the cloud
#                            gives less; checkpoint_every says what can be lost
#   --spot                   on spot nodes
#   --queue QUEUE            a LocalQueue of Kueue
#   --env NAME=VALUE         a variable; may be repeated
#   --secret VARIABLE=SECRET[/KEY]
#                            a variable with what a Secret of the cluster holds under KEY
#                            (default: VARIABLE); may be repeated
#   --namespace NAMESPACE    of Kubernetes
#   --dry-run                print the commands and run nothing
#
# HOPE_IMAGE and HOPE_NAMESPACE stand for --image and --namespace.
#
# examples:
#   launch/jobset.sh apply hope-1b --slice v5e-64 --image IMAGE --claim work -- \
#       hope train --config experiments/hope_1b.py --set data.path=/work/data/web \
#       --workdir /work/runs/hope-1b --distributed
#   launch/jobset.sh logs hope-1b
#   launch/jobset.sh delete hope-1b
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

rendered() {
    local suffix options=()
    slice_facts
    need image "one that launch/Dockerfile has built"
    if [ -n "${OPT[claim]:-}" ] && [ -n "${OPT[bucket]:-}" ]; then
        fail "--claim and --bucket both name what is mounted at /work; give one of them"
    fi
    check_program $((HOSTS * ${OPT[slices]:-1})) "what is written elsewhere than below /work is lost" /work
    if [[ ${PROGRAM[0]} == hope && -z ${OPT[claim]:-}${OPT[bucket]:-} ]]; then
        fail "give --claim or --bucket: without it there is no /work, and what is written is lost"
    fi
    if [ "${OPT[slices]:-1}" -gt 1 ] && [ "$HOSTS" -eq 1 ]; then
        fail "GKE joins slices of several hosts only, and $SLICE has one; take a larger slice"
    fi
    # Kubernetes makes a pod's name of these, and a label takes 63 characters.
    suffix=-slice-$((${OPT[slices]:-1} - 1))-$((HOSTS - 1))-xxxxx
    if [ $((${#NAME} + ${#suffix})) -gt 63 ]; then
        fail "name '$NAME' is too long for pods, which are called $NAME$suffix; use at most" \
            "$((63 - ${#suffix})) characters"
    fi
    for entry in "${ENVS[@]}"; do options+=(--env "$entry"); done
    for entry in "${SECRETS[@]}"; do options+=(--secret "$entry"); done
    python3 "$HERE/render.py" "$HERE/jobset.yaml" "${options[@]}" \
        NAME="$NAME" QUEUE="${OPT[queue]:-}" SLICES:="$((10#${OPT[slices]:-1}))" \
        HOSTS:="$HOSTS" CHIPS:="$CHIPS_PER_HOST" ACCELERATOR="$ACCELERATOR" TOPOLOGY="$TOPOLOGY" \
        IMAGE="${OPT[image]}" RESTARTS:="$((10#${OPT[restarts]:-100}))" \
        GRACE:="$((10#${OPT[grace]:-600}))" SPOT="${OPT[spot]:-}" CLAIM="${OPT[claim]:-}" \
        BUCKET="${OPT[bucket]:-}" ACCOUNT="${OPT[service-account]:-}" -- "${PROGRAM[@]}"
}

parse "render apply status logs delete" \
    "slice= slices= image= claim= bucket= service-account= restarts= grace= spot queue= env= secret= namespace=" "$@"
kubectl=(kubectl)
[ -z "${OPT[namespace]:-}" ] || kubectl+=(--namespace "${OPT[namespace]}")
pods=jobset.sigs.k8s.io/jobset-name=$NAME
how="install it, and point it to the cluster (launch/first_pod_run.md)"

case $ACTION in
    render) rendered ;;
    apply)
        need_program kubectl "$how"
        jobset=$(rendered)
        run_with "$jobset" "${kubectl[@]}" apply -f -
        ;;
    status)
        need_program kubectl "$how"
        run "${kubectl[@]}" get jobset "$NAME" -o wide
        run "${kubectl[@]}" get pods --selector "$pods" -o wide
        ;;
    logs)
        need_program kubectl "$how"
        first=jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0
        run "${kubectl[@]}" logs --selector "$pods,$first" --container train --follow --tail=-1
        ;;
    delete)
        need_program kubectl "$how"
        run "${kubectl[@]}" delete jobset "$NAME"
        ;;
esac
