#!/usr/bin/env bash
# shellcheck disable=SC2034
# The settings that all launch scripts share. They source this file; it is not run by itself.
#
#   VENV=folder           virtual environment (default: .venv of this clone, else PATH)
#   RANKS_PER_NODE=8      ranks on each host (default: one for each visible GPU, or 1)
#   IFACE=ib0             network interface between the ranks (default: chosen by NCCL and gloo)
#   OMP_NUM_THREADS=4     CPU threads of each rank (default: the host's cores divided by its ranks)
#   TORCH_ELASTIC_SHUTDOWN_TIMEOUT=300   seconds that ranks have to save (default: train.grace_s)
#
# S3: the ranks read AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE from the
# environment. No script here prints them or puts them on a command line.

VENV=${VENV:-$PWD/.venv}
if [ -x "$VENV/bin/python" ]; then
  PATH=$(realpath "$VENV/bin"):$PATH
  export PATH
fi

# Otherwise the ranks' store is in a torchrun process, and a node that fails and returns ends the whole job.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export PYTHONUNBUFFERED=1

# Gloo (on CPUs, and for collectives of objects) listens on the address of the host's own name. Where that is
# 127.0.x.1, as on a new Debian, hosts cannot reach each other. NCCL takes the fastest interface that is not
# loopback or docker. On a host with several networks, set IFACE: it is used for both, and for the address that
# torchrun announces. NCCL_DEBUG=INFO shows NCCL's choice. NCCL_IB_HCA selects InfiniBand cards.
rendezvous_address=()
if [ -n "${IFACE:-}" ]; then
  export GLOO_SOCKET_IFNAME=$IFACE NCCL_SOCKET_IFNAME=$IFACE
  address=$(ip -4 -oneline address show dev "$IFACE" | awk '{sub("/.*", "", $4); print $4; exit}')
  [ -n "$address" ] || { echo "IFACE=$IFACE has no IPv4 address on $(hostname): see 'ip address'" >&2; exit 2; }
  rendezvous_address=(--local-addr="$address")
fi

if [ -z "${RANKS_PER_NODE:-}" ]; then
  # First what the ranks will see: nvidia-smi lists all GPUs of the host, also hidden ones.
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    case $CUDA_VISIBLE_DEVICES in
      '' | -1 | NoDevFiles) RANKS_PER_NODE=0 ;;
      *) RANKS_PER_NODE=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .) ;;
    esac
  elif [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
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

# torchrun kills its ranks this many seconds after a signal to stop, also while they save; the default is 30.
# Set it to the train.grace_s of these arguments of pretrain.
give_torchrun_time_for_a_save() {
  [ -z "${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-}" ] || return 0
  local read_grace='import json, sys; print(round(json.load(sys.stdin)["train.grace_s"]["value"]))'
  TORCH_ELASTIC_SHUTDOWN_TIMEOUT=$(python -m retfound_dist show "$@" --json | python -c "$read_grace") || exit 2
  export TORCH_ELASTIC_SHUTDOWN_TIMEOUT
}
