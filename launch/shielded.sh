#!/usr/bin/env bash
# Runs torchrun so that a request to stop lets its ranks save. slurm/node.sh and kubernetes/pod.sh source this file,
# after environment.sh; it is not run by itself.
#
# The ranks get SIGUSR1, save and exit with 0, and torchrun exits with them. torchrun itself gets no signals: SIGTERM
# would make it kill the ranks after a while, also while they save, and SIGUSR1 would end it.
# Ranks that do not handle signals yet find the file RETFOUND_ASKED_TO_STOP.

shield=$(mktemp -d)
trap 'rm -rf "$shield"' EXIT
export RETFOUND_ASKED_TO_STOP=$shield/asked

asked=""
agent=""
# shellcheck disable=SC2317,SC2329 # called by a trap
ask_the_ranks_to_stop() {
  [ -z "$asked" ] || return 0
  asked=yes
  echo "${0##*/} on $(hostname): asking the ranks to save and exit" >&2
  touch "$RETFOUND_ASKED_TO_STOP"
  [ -z "$agent" ] || pkill -USR1 --parent "$agent" || true
}

# Run torchrun, or a script that ends with `exec torchrun`; gives its exit code. Trap signals before.
run_shielded() {
  local status=0
  # signals that are ignored here stay ignored in torchrun, except those that it handles itself
  (
    trap '' TERM USR1 USR2
    export PET_SIGNALS_TO_HANDLE=SIGQUIT
    exec setsid "$@"
  ) &
  agent=$!
  # a trapped signal ends `wait` early: wait until torchrun has really ended
  while :; do
    wait "$agent" && status=0 || status=$?
    kill -0 "$agent" 2>/dev/null || break
  done
  return "$status"
}
