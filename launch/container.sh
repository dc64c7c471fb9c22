#!/usr/bin/env bash
# The container's entry point (launch/Containerfile): runs `retfound`, or another program that is named first.
set -euo pipefail
case "${1:---help}" in
  torchrun | python | bash | sh | srun | /*) exec "$@" ;;
  *) exec retfound "$@" ;;
esac
