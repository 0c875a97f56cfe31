#!/usr/bin/env bash
# A run on GKE through xpk, which makes clusters and JobSets: for trying things out. For a run
# whose manifest you want to see and keep, use launch/jobset.sh.
#
#   launch/xpk.sh create NAME --cluster CLUSTER --slice SLICE [--slices N] [--spot]
#   launch/xpk.sh run NAME --cluster CLUSTER --slice SLICE --image IMAGE [options] -- PROGRAM ...
#   launch/xpk.sh status|logs|delete NAME --cluster CLUSTER
#
#   create   a cluster for such slices; NAME names the workload that will be run
#   run      start the program on all hosts
#   status   workloads of the cluster
#   logs     what the first host prints, with the cluster that kubectl points to
#   delete   end the workload; the cluster stays: xpk cluster delete --cluster CLUSTER
#
#   --slice SLICE      e.g. v5e-64; the table is in launch/README.md
#   --slices N         so many of them (default 1)
#   --image IMAGE      built with launch/Dockerfile
#   --storage STORAGE  that `xpk storage` knows; it says where it is mounted
#   --restarts N       how often all may begin again (default 100)
#   --grace SECONDS    from SIGTERM to SIGKILL (default 600)
#   --env NAME=VALUE   a variable; may be repeated
#   --project, --zone  of the cluster
#   --dry-run          print the commands and run nothing
#
# HOPE_PROJECT, HOPE_ZONE, HOPE_CLUSTER and HOPE_IMAGE stand for the options. xpk writes
# variables into the manifest as they are, so there is no --secret: launch/jobset.sh has it.
#
# examples:
#   launch/xpk.sh run hope-1b --cluster pods --slice v5e-64 --image IMAGE --storage work -- \
#       hope train --config experiments/hope_1b.py --workdir /work/runs/hope-1b --distributed
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

parse "create run status logs delete" \
    "cluster= slice= slices= image= storage= restarts= grace= env= project= zone= spot" "$@"
[ "$ACTION" = logs ] || need cluster "the name of a cluster that xpk made, or will make"
where=(--cluster="${OPT[cluster]:-}")
[ -z "${OPT[project]:-}" ] || where+=(--project="${OPT[project]}")
[ -z "${OPT[zone]:-}" ] || where+=(--zone="${OPT[zone]}")
[ "$ACTION" = logs ] || need_program xpk "install it: pip install xpk"

size() {
    slice_facts
    # xpk knows slices by the names of TPU VMs, and by their own where there are none.
    tpu=(--tpu-type="${VM_TYPE:-$SLICE}" --num-slices="$((10#${OPT[slices]:-1}))")
}

case $ACTION in
    create)
        size
        [ -z "${OPT[spot]:-}" ] || tpu+=(--spot)
        run xpk cluster create "${where[@]}" "${tpu[@]}"
        ;;
    run)
        [ -z "${OPT[spot]:-}" ] || fail "--spot belongs to create: the cluster has spot nodes or not"
        size
        need image "one that launch/Dockerfile has built"
        check_program $((HOSTS * ${OPT[slices]:-1})) "name a folder of the --storage, or all is lost"
        [ ${#NAME} -le 40 ] || fail "name '$NAME' is too long for xpk; use at most 40 characters"
        options=(--docker-image="${OPT[image]}" --max-restarts="$((10#${OPT[restarts]:-100}))")
        options+=(--termination-grace-period-seconds="$((10#${OPT[grace]:-600}))")
        [ -z "${OPT[storage]:-}" ] || options+=(--storage="${OPT[storage]}")
        for entry in "${ENVS[@]}"; do options+=(--env="$entry"); done
        # xpk starts a shell in place of the image's entrypoint, and hands SIGTERM to its child.
        run xpk workload create --workload="$NAME" "${where[@]}" "${tpu[@]}" "${options[@]}" \
            --command="exec /hope/launch/env.sh $(quoted "${PROGRAM[@]}")"
        ;;
    status) run xpk workload list "${where[@]}" ;;
    logs)
        need_program kubectl "install it, and point it to the cluster"
        first=jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0
        run kubectl logs --selector "jobset.sigs.k8s.io/jobset-name=$NAME,$first" --follow --tail=-1
        ;;
    delete) run xpk workload delete --workload="$NAME" "${where[@]}" ;;
esac
