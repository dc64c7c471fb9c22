#!/usr/bin/env bash
# Pretrain on several hosts without a scheduler. Run it on each host, from the root of the clone.
#
# With a fixed number of hosts, numbered from 0; host 0 is MASTER_ADDR:
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 launch/torchrun.sh CONFIG.toml [key=value ...]
#   NNODES=2 NODE_RANK=1 MASTER_ADDR=host0 launch/torchrun.sh CONFIG.toml [key=value ...]
#
# With two to four hosts that may join and leave, the same line on each; host0 must stay:
#   NNODES=2:4 RDZV_ENDPOINT=host0:29400 launch/torchrun.sh CONFIG.toml [key=value ...]
# When a host is lost, the others restart from the last checkpoint after about 20 s (at most RESTARTS times).
#
# Other settings: MASTER_PORT (29500), RDZV_ID (retfound@RDZV_ENDPOINT), RESTARTS (10), and launch/environment.sh.
# Where a host's name resolves to 127.0.x.1, set IFACE, and RDZV_HOST=true on host0 and false on the others.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,13p' "$0" >&2; exit 2; }
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
: "${NNODES:?the number of hosts, such as 2, or least:most, such as 2:4}"

if [[ $NNODES == *:* ]]; then
  : "${RDZV_ENDPOINT:?host:port of the host that must stay}"
  settings=last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3
  [ -z "${RDZV_HOST:-}" ] || settings=$settings,is_host=$RDZV_HOST
  rendezvous=(--rdzv-backend=c10d --rdzv-endpoint="$RDZV_ENDPOINT" --rdzv-id="${RDZV_ID:-retfound@$RDZV_ENDPOINT}"
    --rdzv-conf="$settings" --max-restarts="${RESTARTS:-10}")
else
  rendezvous=(--node-rank="${NODE_RANK:?the number of this host, from 0}"
    --master-addr="${MASTER_ADDR:?the name or address of host 0}" --master-port="${MASTER_PORT:-29500}")
fi
give_torchrun_time_for_a_save "$@"
exec torchrun --nnodes="$NNODES" --nproc-per-node="$RANKS_PER_NODE" "${rendezvous_address[@]}" "${rendezvous[@]}" \
  -m retfound_dist pretrain "$@"
