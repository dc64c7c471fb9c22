#!/usr/bin/env bash
# A real Slurm on this machine: each node has its own network, hostname and IP (10.99.0.I), the
# controller sits on the switch between them (10.99.0.254). The machine's own network is untouched.
#   NAME=rf NODES=2 slurm.sh up DIR      ready in some 2 s; NAME (at most 8 letters) tells clusters apart
#   slurm.sh ctl DIR COMMAND...          run a command beside the controller (sbatch, squeue, an S3 server)
#   slurm.sh node DIR I COMMAND...       run a command on node I
#   slurm.sh kill DIR I                  end every process on node I at once, as without power
#   slurm.sh down DIR                    end every process in the cluster's networks, and these
# GPUS=2 gives each node two pretended GPUs.
# Cut a link: ip -n NAMEsw link set v1 down.
set -euo pipefail
action=${1:?up, ctl, node, kill or down}
dir=$(realpath -m "${2:?a scratch folder}")
shift 2
self=$(realpath "${BASH_SOURCE[0]}")
if [ "$action" = up ]; then
  name=${NAME:-rf} nodes=${NODES:-2}
else
  [ -f "$dir/cluster" ] || { echo "no cluster in $dir" >&2; exit 1; }
  read -r name nodes <"$dir/cluster"
fi
export SLURM_CONF=$dir/slurm.conf

# shellcheck source=tests/cluster/infra/networks.sh
source "$(dirname "$self")/networks.sh"

write_config() {
  local gres=""
  [ "${GPUS:-0}" = 0 ] || gres="Gres=gpu:$GPUS"
  cat >"$SLURM_CONF" <<CONF
ClusterName=$name
SlurmctldHost=ctl
SlurmUser=root
SlurmdUser=root
# cred_expire is also how long a requeued job waits (120 s otherwise)
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/jobcomp.txt
KillWait=30
MinJobAge=3600
SlurmdTimeout=10
${gres:+GresTypes=gpu}
NodeName=node[1-$nodes] CPUs=8 RealMemory=16000 $gres
PartitionName=train Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
CONF
  local i
  for ((i = 0; i < ${GPUS:-0}; i++)); do
    mkdir -p "$dir/dev"
    mknod "$dir/dev/gpu$i" c 1 3
    echo "NodeName=node[1-$nodes] Name=gpu File=$dir/dev/gpu$i" >>"$dir/gres.conf"
  done
}

start_daemons() {
  (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
  munged --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/log/munged.log" --seed-file="$dir/munged.seed" --force
  "$self" ctl "$dir" slurmctld
  local i
  for i in $(seq "$nodes"); do "$self" node "$dir" "$i" slurmd; done
}

wait_for_nodes() {
  for _ in $(seq 100); do
    if [ "$("$self" ctl "$dir" sinfo -h -N -p train -t idle -o %N 2>/dev/null | wc -l)" = "$nodes" ]; then return; fi
    sleep 0.2
  done
  echo "Slurm did not start in 20 s: see $dir/log" >&2
  return 1
}

up() {
  rm -rf "$dir"
  mkdir -p "$dir"/{state,log,spool}
  chmod 755 "$dir"
  echo "$name $nodes" >"$dir/cluster"
  make_networks
  write_config
  start_daemons
  wait_for_nodes
}

down() {
  remove_networks
  # only the munged that this folder started: the number may have been given to another since
  local pid
  pid=$(cat "$dir/munged.pid" 2>/dev/null || true)
  if [ -n "$pid" ] && grep -qzF "$dir/munge.key" "/proc/$pid/cmdline" 2>/dev/null; then kill "$pid"; fi
}

case $action in
up) up ;;
down) down ;;
ctl) enter "$switch" ctl "$@" ;;
node)
  index=$1
  shift
  enter "$name$index" "node$index" "$@"
  ;;
kill) ip netns pids "$name$1" | xargs --no-run-if-empty kill -9 ;;
*) echo "$0: $action is not up, ctl, node, kill or down" >&2; exit 2 ;;
esac
