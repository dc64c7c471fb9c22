#!/usr/bin/env bash
# Pretrain on this machine: one rank for each GPU, or RANKS_PER_NODE of them.
#   launch/local.sh configs/pretrain_vitl_oct.toml run.url=runs/oct
#   RANKS_PER_NODE=2 launch/local.sh configs/demo/pretrain.toml
# Run it from the root of the clone. Started again with the same arguments, the run resumes.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [ "$RANKS_PER_NODE" = 1 ]; then
  exec python -m retfound_dist pretrain "$@"
fi
give_torchrun_time_for_a_save "$@"
exec torchrun --standalone --nproc-per-node="$RANKS_PER_NODE" -m retfound_dist pretrain "$@"
