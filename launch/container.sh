#!/usr/bin/env bash
# The container's entry point (launch/Containerfile): `retfound` for its own commands, else what was asked for.
set -euo pipefail
case "${1:---help}" in
  torchrun | python | bash | sh | srun | /*) exec "$@" ;;
  *) exec retfound "$@" ;;
esac
