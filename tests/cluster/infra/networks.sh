# Sourced by slurm.sh and hosts.sh: each node has its own network, hostname and IP (10.99.0.I), and
# all meet on a switch (10.99.0.254), which is a network of its own too: the machine's is untouched.
# Set by whoever sources it: name (at most 8 letters), nodes, dir.
# shellcheck shell=bash disable=SC2154
subnet=10.99.0
switch=${name}sw

# nsenter, not `ip netns exec`: that remounts /sys, and slurmd ends without its cgroup file system.
enter() {
  local namespace=$1 host=$2
  shift 2
  # shellcheck disable=SC2016
  exec nsenter --net="/run/netns/$namespace" unshare --uts --mount bash -c \
    'hostname "$0"; mount --bind "$1/hosts" /etc/hosts; shift; exec "$@"' "$host" "$dir" "$@"
}

make_networks() {
  ip netns add "$switch"
  ip -n "$switch" link set lo up
  ip -n "$switch" link add br0 type bridge
  ip -n "$switch" addr add "$subnet.254/24" dev br0
  ip -n "$switch" link set br0 up
  printf '127.0.0.1 localhost\n%s ctl\n' "$subnet.254" >"$dir/hosts"
  local i
  for i in $(seq "$nodes"); do
    ip netns add "$name$i"
    ip -n "$name$i" link set lo up
    ip link add eth0 netns "$name$i" type veth peer name "v$i" netns "$switch"
    ip -n "$switch" link set "v$i" master br0 up
    ip -n "$name$i" addr add "$subnet.$i/24" dev eth0
    ip -n "$name$i" link set eth0 up
    echo "$subnet.$i node$i" >>"$dir/hosts"
  done
}

# End every process in the networks, and these.
remove_networks() {
  local namespace
  for namespace in $(seq -f "$name%g" "$nodes") "$switch"; do
    ip netns pids "$namespace" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns del "$namespace" 2>/dev/null || true
  done
}
