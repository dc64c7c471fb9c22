#!/usr/bin/env bash
# One host of a Slurm job: torchrun and its ranks. srun in pretrain.sbatch starts this script on each node with
# RDZV_ENDPOINT set. Do not run it by hand.
#
# With proctrack/cgroup, Slurm's own signals reach only this script; with proctrack/linuxproc, every process of the
# step. Therefore the ranks treat two signals within a moment as one, and their loader processes ignore signals.
# SIGUSR2 comes from pretrain.sbatch, for this script alone.
set -euo pipefail
# shellcheck source=launch/environment.sh
source launch/environment.sh
# shellcheck source=launch/shielded.sh
source launch/shielded.sh
trap '' USR1
trap ask_the_ranks_to_stop USR2 TERM
give_torchrun_time_for_a_save "$@"

is_host=false
[ "$SLURM_NODEID" != 0 ] || is_host=true
run_shielded torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$RANKS_PER_NODE" "${rendezvous_address[@]}" \
  --rdzv-backend=c10d --rdzv-endpoint="$RDZV_ENDPOINT" --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
  --rdzv-conf=is_host=$is_host -m retfound_dist pretrain "$@"
