#!/usr/bin/env bash
# One host of a Slurm job: torchrun and its ranks. srun in pretrain.sbatch starts this script on each node with
# RDZV_ENDPOINT set. Do not run it by hand.
#
# How a job stops: the ranks get SIGUSR1, save and exit with 0, and torchrun exits with them. torchrun itself
# gets no signals: SIGTERM would make it kill the ranks after a while, also while they save, and SIGUSR1 would
# end it. With proctrack/cgroup, Slurm's own signals reach only this script; with proctrack/linuxproc, every
# process of the step. Therefore the ranks treat two signals within a moment as one, and their loader processes
# ignore signals. SIGUSR2 comes from pretrain.sbatch, for this script alone.
# Ranks that do not handle signals yet find the file RETFOUND_ASKED_TO_STOP.
set -euo pipefail
# shellcheck source=launch/environment.sh
source launch/environment.sh
give_torchrun_time_for_a_save "$@"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export RETFOUND_ASKED_TO_STOP=$folder/asked
is_host=false
[ "$SLURM_NODEID" != 0 ] || is_host=true

asked=""
agent=""
# shellcheck disable=SC2317 # called by the trap
ask_the_ranks_to_stop() {
  [ -z "$asked" ] || return 0
  asked=yes
  echo "node.sh on $(hostname): asking the ranks to save and exit" >&2
  touch "$RETFOUND_ASKED_TO_STOP"
  [ -z "$agent" ] || pkill -USR1 --parent "$agent" || true
}
trap '' USR1
trap ask_the_ranks_to_stop USR2 TERM

# signals that are ignored here stay ignored in torchrun, except those that it handles itself
(
  trap '' TERM USR1 USR2
  export PET_SIGNALS_TO_HANDLE=SIGQUIT
  exec setsid torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$RANKS_PER_NODE" "${rendezvous_address[@]}" \
    --rdzv-backend=c10d --rdzv-endpoint="$RDZV_ENDPOINT" --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    --rdzv-conf=is_host=$is_host -m retfound_dist pretrain "$@"
) &
agent=$!

# a trapped signal ends `wait` early: wait until torchrun has really ended
status=0
while :; do
  wait "$agent" && status=0 || status=$?
  kill -0 "$agent" 2>/dev/null || break
done
exit "$status"
