#!/usr/bin/env bash
# One host's part of a Slurm job: torchrun and its ranks. srun in pretrain.sbatch starts one on each
# node with RDZV_ENDPOINT set; it is not run by hand.
#
# Being asked to stop: torchrun answers SIGTERM by ending the ranks within 30 s, and dies of SIGUSR1.
# So it is asked nothing: the ranks get SIGUSR1, save, leave with 0, and torchrun with them. Slurm's
# own signals reach only this script where proctrack/cgroup is used, but every process of the step
# with proctrack/linuxproc; hence SIGUSR2 between pretrain.sbatch and here, which all others ignore,
# and SIGUSR1 from here, so that each rank is asked once. (SIGTERM, from scancel or a pre-emption
# without warning, may reach the ranks twice there.)
set -euo pipefail
# shellcheck source=launch/environment.sh
source launch/environment.sh

trap '' USR1 USR2 # inherited by torchrun, and by the ranks until they set their handler
is_host=false
[ "$SLURM_NODEID" != 0 ] || is_host=true
setsid torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$RANKS_PER_NODE" "${rendezvous_address[@]}" \
  --rdzv-backend=c10d --rdzv-endpoint="$RDZV_ENDPOINT" --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
  --rdzv-conf=is_host=$is_host -m retfound_dist pretrain "$@" &
agent=$!

asked=""
# shellcheck disable=SC2317 # called by the trap
ask_the_ranks_to_stop() {
  [ -z "$asked" ] || return 0
  asked=yes
  echo "node.sh on $(hostname): asking the ranks to save and leave" >&2
  pkill -USR1 --parent "$agent" || true
}
trap ask_the_ranks_to_stop USR2 TERM

# a trapped signal ends `wait` early: wait until torchrun has really left
status=0
while :; do
  wait "$agent" && status=0 || status=$?
  kill -0 "$agent" 2>/dev/null || break
done
exit "$status"
