#!/usr/bin/env bash
# Print the tested versions of constraints.txt, where needed with another torch:
#   launch/constraints.sh                 for NVIDIA drivers from 580 on (CUDA 13)
#   TORCH=2.10.0 launch/constraints.sh    for drivers from 525 on: its wheel contains CUDA 12.8
# torchvision belongs to one torch, so pip chooses it for another one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${TORCH:-}" ]; then
  exec cat constraints.txt
fi
sed '/^torch\(vision\)\{0,1\}==/d' constraints.txt
echo "torch==$TORCH"
