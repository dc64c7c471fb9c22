#!/usr/bin/env bash
# Install on a cluster without conda and without root. Run it once on a login node, from the root of the clone.
#   launch/cluster_setup.sh [FOLDER]        FOLDER: on a file system that all nodes share (default: .venv here)
#
#   PYTHON=python3.11     the interpreter (`module load python/3.11` first, where there are modules)
#   TORCH=2.10.0          for NVIDIA drivers older than 580 (docs/slurm.md)
#   SCRATCH=/scratch/me   where pip's cache and temporary files go: home folders are small (default: $TMPDIR or /tmp)
#
# Then:  VENV=FOLDER sbatch --nodes=4 --gpus-per-node=8 launch/slurm/pretrain.sbatch CONFIG.toml
# torch's wheels contain CUDA and NCCL. Do not load modules for these: they may conflict.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-${VENV:-$PWD/.venv}}
python=${PYTHON:-python3}
scratch=${SCRATCH:-${TMPDIR:-/tmp}}

command -v "$python" >/dev/null \
  || { echo "$python is not found: load a module or set PYTHON" >&2; exit 2; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || { echo "$python is older than Python 3.11: load a newer module or set PYTHON=python3.11" >&2; exit 2; }
mkdir -p "$folder" "$scratch" || { echo "cannot write to $folder or $scratch" >&2; exit 2; }
case " ${LOADEDMODULES:-} " in
  *cuda* | *nccl*) echo "note: CUDA or NCCL modules are loaded, but torch has its own: if training fails, unload them with module unload" ;;
esac

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
export PIP_CACHE_DIR=$scratch/pip-cache TMPDIR=$scratch DS_BUILD_OPS=0
echo "installing into $folder (some 6 GB)"
launch/constraints.sh >"$folder/constraints.txt"
"$folder/bin/python" -m pip install -q --disable-pip-version-check -c "$folder/constraints.txt" ".[dashboard]"

# test what a node needs
"$folder/bin/retfound" plan configs/pretrain_vitl_oct.toml --nodes 1 --gpus-per-node 8 >/dev/null
echo "installed: $("$folder/bin/python" -c 'from importlib.metadata import version as v; print("retfound-dist", v("retfound-dist"))')"
echo "next: VENV=$folder sbatch --nodes=4 --gpus-per-node=8 launch/slurm/pretrain.sbatch configs/pretrain_vitl_oct.toml"
