#!/usr/bin/env bash
# One host's part of a Slurm job: torchrun and its ranks. srun in pretrain.sbatch starts one on each
# node with RDZV_ENDPOINT set; it is not run by hand.
#
# Being asked to stop: the ranks get SIGUSR1, save, leave with 0, and torchrun with them. torchrun itself
# is kept from signals: it would answer SIGTERM by ending the ranks after a while, whatever they save, and
# die of SIGUSR1. Slurm's own signals reach only this script where proctrack/cgroup is used, but every
# process of the step with proctrack/linuxproc; so the ranks take two signals in one breath for one, and
# their loader processes none at all. SIGUSR2, from pretrain.sbatch, is for this script alone.
# Ranks that do not listen yet, or are not there yet, find the file RETFOUND_ASKED_TO_STOP.
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
  echo "node.sh on $(hostname): asking the ranks to save and leave" >&2
  touch "$RETFOUND_ASKED_TO_STOP"
  [ -z "$agent" ] || pkill -USR1 --parent "$agent" || true
}
trap '' USR1
trap ask_the_ranks_to_stop USR2 TERM

# what is ignored here stays ignored in torchrun, but for the signals that it asks to handle
(
  trap '' TERM USR1 USR2
  export PET_SIGNALS_TO_HANDLE=SIGQUIT
  exec setsid torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$RANKS_PER_NODE" "${rendezvous_address[@]}" \
    --rdzv-backend=c10d --rdzv-endpoint="$RDZV_ENDPOINT" --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    --rdzv-conf=is_host=$is_host -m retfound_dist pretrain "$@"
) &
agent=$!

# a trapped signal ends `wait` early: wait until torchrun has really left
status=0
while :; do
  wait "$agent" && status=0 || status=$?
  kill -0 "$agent" 2>/dev/null || break
done
exit "$status"
