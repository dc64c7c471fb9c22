#!/usr/bin/env bash
# shellcheck disable=SC2034
# Sourced by the other launch scripts (not run by itself): what every way to start ranks shares.
#
#   VENV=folder           virtual environment (default: .venv of this clone; else what PATH has)
#   RANKS_PER_NODE=8      ranks on each host (default: one for each GPU, or 1)
#   IFACE=ib0             network interface that ranks talk over (default: they find out)
#   OMP_NUM_THREADS=4     CPU threads of each rank (default: the host's cores shared between its ranks)
#   TORCH_ELASTIC_SHUTDOWN_TIMEOUT=300   seconds that ranks have to save (default: train.grace_s)
#
# S3: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE are read from the
# environment by the ranks themselves. No script here puts them on a command line or prints them.

VENV=${VENV:-$PWD/.venv}
if [ -x "$VENV/bin/python" ]; then
  PATH=$(realpath "$VENV/bin"):$PATH
  export PATH
fi

# A node that dies and comes back ends the whole job when the ranks' store lives in torchrun's own.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export PYTHONUNBUFFERED=1

# Gloo (CPU, and every object collective) listens on the address that the host's own name resolves
# to; where that is 127.0.x.1, as on a fresh Debian, hosts cannot reach each other. NCCL takes the
# fastest interface it finds that is not loopback or docker; on a host with several networks say
# which. NCCL_DEBUG=INFO shows the choice, NCCL_IB_HCA picks InfiniBand cards. IFACE sets both, and
# the address that torchrun announces.
rendezvous_address=()
if [ -n "${IFACE:-}" ]; then
  export GLOO_SOCKET_IFNAME=$IFACE NCCL_SOCKET_IFNAME=$IFACE
  address=$(ip -4 -oneline address show dev "$IFACE" | awk '{sub("/.*", "", $4); print $4; exit}')
  [ -n "$address" ] || { echo "IFACE=$IFACE has no IPv4 address on $(hostname): see 'ip address'" >&2; exit 2; }
  rendezvous_address=(--local-addr="$address")
fi

if [ -z "${RANKS_PER_NODE:-}" ]; then
  if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
    RANKS_PER_NODE=$SLURM_GPUS_ON_NODE
  elif command -v nvidia-smi >/dev/null; then
    RANKS_PER_NODE=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
  fi
  [ "${RANKS_PER_NODE:-0}" -gt 0 ] || RANKS_PER_NODE=1
fi
if [ -z "${OMP_NUM_THREADS:-}" ]; then
  OMP_NUM_THREADS=$(($(nproc) / RANKS_PER_NODE))
  [ "$OMP_NUM_THREADS" -gt 0 ] || OMP_NUM_THREADS=1
fi
export RANKS_PER_NODE OMP_NUM_THREADS

# torchrun ends its ranks so long after it was told to stop, whatever they are saving; unless told
# otherwise after 30 s. With the arguments of pretrain: what their train.grace_s says.
give_torchrun_time_for_a_save() {
  [ -z "${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-}" ] || return 0
  local read_grace='import json, sys; print(round(json.load(sys.stdin)["train.grace_s"]["value"]))'
  TORCH_ELASTIC_SHUTDOWN_TIMEOUT=$(python -m retfound_dist show "$@" --json | python -c "$read_grace") || exit 2
  export TORCH_ELASTIC_SHUTDOWN_TIMEOUT
}
