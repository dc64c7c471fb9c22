#!/usr/bin/env bash
# Hosts on this machine, each with its own network, hostname, IP (10.99.0.I) and scratch disk DIR/tmp.
#   NAME=rf NODES=3 hosts.sh up DIR      NAME (at most 8 letters) tells several such sets apart
#   hosts.sh ctl DIR COMMAND...          run a command on the switch between them (an S3 server)
#   hosts.sh node DIR I COMMAND...       run a command on host I, known as nodeI
#   hosts.sh kill DIR I                  kill -9 for all that runs on host I
#   hosts.sh pids DIR I                  the processes on host I
#   hosts.sh down DIR                    end every process on the hosts, and these
set -euo pipefail
action=${1:?up, ctl, node, kill, pids or down}
dir=$(realpath -m "${2:?a scratch folder}")
shift 2
if [ "$action" = up ]; then
  name=${NAME:-rf} nodes=${NODES:-3}
else
  [ -f "$dir/hosts-up" ] || { echo "no hosts in $dir" >&2; exit 1; }
  read -r name nodes <"$dir/hosts-up"
fi
# shellcheck source=tests/cluster/infra/networks.sh
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/networks.sh"

up() {
  mkdir -p "$dir/tmp"
  local i
  for i in $(seq "$nodes"); do mkdir -p "$dir/disk$i"; done
  echo "$name $nodes" >"$dir/hosts-up"
  make_networks
}

case $action in
up) up ;;
down) remove_networks ;;
ctl) enter "$switch" ctl "$@" ;;
kill) ip netns pids "$name$1" | xargs -r kill -9 2>/dev/null || true ;;
pids) ip netns pids "$name$1" ;;
node)
  index=$1
  shift
  # shellcheck disable=SC2016
  TMPDIR=$dir/tmp enter "$name$index" "node$index" bash -c 'mount --bind "$0" "$TMPDIR"; exec "$@"' \
    "$dir/disk$index" "$@"
  ;;
*) echo "$0: $action is not up, ctl, node, kill, pids or down" >&2; exit 2 ;;
esac
