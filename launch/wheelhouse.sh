#!/usr/bin/env bash
# Collect all wheels that a machine without a network needs to install this project. Run it where there is a network:
#   make wheelhouse                       for this Python and platform, into wheelhouse/
#   make wheelhouse PYTHON_VERSION=3.12   for another Python on the same platform
#   make wheelhouse TORCH=2.10.0          for NVIDIA drivers older than 580: torch with CUDA 12.8 (docs/slurm.md)
# Copy the clone with this folder to the other machine. The last lines say how to install from it.
#
#   WHEELHOUSE=folder   where to (default: wheelhouse)
#   EXTRAS=dev          extras of pyproject.toml; dev has all others, and the tools of tests and benchmarks
#   PYTHON=python3.11   the interpreter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${WHEELHOUSE:-wheelhouse}
extras=${EXTRAS:-dev}
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || { echo "$python is older than Python 3.11: set PYTHON=python3.11" >&2; exit 2; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$folder"
folder=$(realpath "$folder")
launch/constraints.sh >"$folder/constraints.txt"

# A pip of its own: that of the interpreter may be old.
"$python" -m venv "$scratch/venv"
pip=("$scratch/venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install -q --upgrade pip setuptools
echo "collecting wheels in $folder: 3 to 4 GB, some minutes"

# From a copy, because setuptools writes into the folder that it builds.
mkdir "$scratch/source"
cp -r pyproject.toml README.md LICENSE NOTICE retfound_dist shards configs "$scratch/source"
"${pip[@]}" wheel -q --no-deps -w "$folder" "$scratch/source"

# No wheels of these two can be downloaded. DeepSpeed's has no compiled operators, so it fits each Python.
export DS_BUILD_OPS=0
for name in deepspeed yattag; do
  "${pip[@]}" wheel -q --no-deps --no-build-isolation -w "$folder" "$(grep "^$name==" constraints.txt)"
done

collect=(wheel -w "$folder")
[ -z "${PYTHON_VERSION:-}" ] || collect=(download -d "$folder" --only-binary=:all: --python-version="$PYTHON_VERSION")
"${pip[@]}" "${collect[@]}" -q --find-links "$folder" -c "$folder/constraints.txt" "retfound-dist[$extras]" "setuptools>=77"

wheels=("$folder"/*.whl)
install="pip install --no-index --find-links wheelhouse -c wheelhouse/constraints.txt"
echo "${#wheels[@]} wheels, $(du -sh "$folder" | cut -f1), for Python ${PYTHON_VERSION:-$("$python" -c 'import platform; print(platform.python_version())')}"
echo "On the other machine, in the clone:"
echo "  $install 'retfound-dist[dashboard]'"
echo "or, to get .venv as make setup does, for make bench-gpu and make test:"
echo "  PIP_NO_INDEX=1 PIP_FIND_LINKS=\$PWD/wheelhouse make setup${TORCH:+ TORCH=$TORCH}"
