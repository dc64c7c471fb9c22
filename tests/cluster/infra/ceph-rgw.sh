#!/usr/bin/env bash
# A real S3 server (Ceph RGW: one monitor, one OSD on a sparse file) on loopback, without systemd.
#   AWS_ACCESS_KEY_ID=k AWS_SECRET_ACCESS_KEY=s ceph-rgw.sh up DIR PORT    ready in some 15 s
#   ceph-rgw.sh down DIR
# Uses PORT (S3), PORT+1 and PORT+2 (monitor). The OSD is kept in DIR and goes with it.
# BIND=address serves S3 on another address of this network namespace.
set -euo pipefail
action=${1:?up or down}
dir=$(realpath -m "${2:?a scratch folder}")
bind=${BIND:-127.0.0.1}
export CEPH_CONF=$dir/ceph.conf

write_config() {
  local port=$1
  cat >"$CEPH_CONF" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = [v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]
ms bind ipv4 = true
public network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $dir/keyring
mon data = $dir/mon
osd data = $dir/osd
run dir = $dir/run
admin socket = $dir/run/\$name.asok
pid file = $dir/run/\$name.pid
log file = $dir/log/\$name.log
crash dir = $dir/run
# one OSD, one copy of everything
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd crush initial weight = 1
# read leases last 0.8 of this: on a machine that stands still for 16 s the one OSD would wait for its own for ever
osd heartbeat grace = 86400
mon allow pool size one = true
mon max pg per osd = 1000
# a test machine's disk may be nearly full
mon data avail warn = 1
mon data avail crit = 0
osd objectstore = bluestore
bluestore block size = $((${GB:-20} * 1073741824))
bluestore block db create = false
bluestore block wal create = false
bluestore fsck quick fix on mount = false
osd memory target = 939524096
rgw enable usage log = false
rgw thread pool size = 64
CONF
}

make_keys() {
  local tool=(ceph-authtool "$dir/keyring" --gen-key)
  "${tool[@]}" --create-keyring -n mon. --cap mon 'allow *'
  "${tool[@]}" -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  "${tool[@]}" -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd'
  "${tool[@]}" -n client.rgw --cap mon 'allow rwx' --cap osd 'allow rwx'
}

start_storage() {
  local port=$1 uuid fsid
  fsid=$(ceph-conf --lookup fsid)
  monmaptool --create --fsid "$fsid" "$dir/monmap" \
    --addv a "[v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]"
  ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/keyring"
  ceph-mon -i a
  uuid=$(cat /proc/sys/kernel/random/uuid)
  timeout 30 ceph osd new "$uuid"
  ceph-osd -i 0 --mkfs --osd-uuid "$uuid"
  ceph-osd -i 0
}

wait_for_port() {
  for _ in $(seq 150); do
    if (exec 3<>"/dev/tcp/$bind/$1") 2>/dev/null; then return; fi
    sleep 0.2
  done
  echo "no S3 server on $bind:$1 after 30 s: see $dir/log" >&2
  return 1
}

up() {
  local port=$1
  : "${AWS_ACCESS_KEY_ID:?}" "${AWS_SECRET_ACCESS_KEY:?}"
  rm -rf "$dir"
  mkdir -p "$dir"/{mon,osd,run,log}
  write_config "$port"
  {
    make_keys
    start_storage "$port"
    radosgw -n client.rgw --rgw-frontends="beast endpoint=$bind:$port"
    timeout 60 radosgw-admin -n client.rgw user create --uid=test --display-name=test \
      --access-key="$AWS_ACCESS_KEY_ID" --secret-key="$AWS_SECRET_ACCESS_KEY"
  } >"$dir/log/up.log" 2>&1 || { tail -n 5 "$dir/log/up.log" >&2; return 1; }
  wait_for_port "$port"
}

down() {
  local file pid
  for file in "$dir"/run/{client.rgw,osd.0,mon.a}.pid; do
    [ -f "$file" ] || continue
    pid=$(cat "$file")
    # only a process that this folder started: the number may have been given to another since
    grep -qz "^CEPH_CONF=$dir/ceph.conf$" "/proc/$pid/environ" 2>/dev/null || continue
    kill -"${SIGNAL:-TERM}" "$pid"
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
  done
}

case $action in
up) up "${3:?a port}" ;;
down) down ;;
*) echo "$0: $action is neither up nor down" >&2; exit 2 ;;
esac
