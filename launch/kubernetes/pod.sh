#!/usr/bin/env bash
# One pod of pretrain.yaml: torchrun and its ranks. Its arguments are those of `retfound pretrain`.
#
# Kubernetes sends SIGTERM to this script alone, when it deletes, evicts or pre-empts the pod. Then all ranks of the
# run save at the same step, and the pods end. The exit code tells the Job what to do:
#   0    the run has reached its last step: the pod is complete
#   75   not finished: stopped and saved, or an error that another start may solve. The Job starts the pod again
#   2    an error that another start cannot solve, such as a wrong setting. The Job fails (podFailurePolicy)
#
# Kubernetes sets JOB_COMPLETION_INDEX, the number of this pod from 0. pretrain.yaml sets NNODES and MASTER_ADDR.
# Other settings: launch/torchrun.sh and launch/environment.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -ge 1 ] || { sed -n '2,11p' "${BASH_SOURCE[0]}" >&2; exit 2; }
# shellcheck source=launch/environment.sh
source launch/environment.sh
# shellcheck source=launch/shielded.sh
source launch/shielded.sh
trap ask_the_ranks_to_stop TERM
export NODE_RANK=${JOB_COMPLETION_INDEX:?the number of this pod: the Job needs completionMode Indexed}

# The trainer deletes this file when the run is over, or would fail again in the same way. It keeps the file when the
# run was asked to stop, because a signal from Kubernetes does not mean that the run is cancelled.
export RETFOUND_START_AGAIN=$shield/start_again RETFOUND_START_AGAIN_AFTER_STOP=1
touch "$RETFOUND_START_AGAIN"

status=0
# a wrong setting ends here, with 2; also sets the time that torchrun gives its ranks
give_torchrun_time_for_a_save "$@"
run_shielded launch/torchrun.sh "$@" || status=$?
if [ -e "$RETFOUND_START_AGAIN" ]; then
  echo "pod.sh on $(hostname): not finished (torchrun ended with $status): start again" >&2
  exit 75
fi
[ "$status" = 0 ] || exit 2
