#!/usr/bin/env bash
# Make docs/report.png: a small run with three starts on generated B-scans, and a screenshot of its report.
#   make docs-figures          about 3 minutes on 2 cores; needs chromium
# Look at the picture before you commit it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh
command -v chromium >/dev/null || { echo "chromium is not installed: .ci/install-system-packages" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python -m retfound_dist pack configs/demo/pack.toml out.url="$folder/shards" phantom.patients=80 phantom.slices=3 --quiet
start() {
  OMP_NUM_THREADS=1 python -m torch.distributed.run --standalone --nproc-per-node "$1" -m retfound_dist pretrain \
    configs/demo/pretrain.toml data.shards="$folder/shards" run.url="$folder/runs/vit" train.steps=160 \
    train.global_batch=32 train.log_every=2 train.threads=1 checkpoint.every_steps=40 --quiet "${@:2}"
}
start 1 train.stop_at_step=60
start 2 train.stop_at_step=120
start 1
for step in 00000060 00000120 00000160; do
  python -m retfound_dist evaluate configs/demo/evaluate.toml data.path="$folder/shards" finetune.epochs=5 --quiet \
    checkpoint="$folder/runs/vit/checkpoints/step_$step" out.url="$folder/runs/vit/evaluations/step_$step"
done
python -m retfound_dist report "$folder/runs/vit" --quiet
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$folder/profile" \
  --window-size=1200,2004 --screenshot="$folder/report.png" "file://$folder/runs/vit/report.html" 2>/dev/null
python - "$folder/report.png" docs/report.png <<'END'
import sys
from PIL import Image
picture = Image.open(sys.argv[1]).convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT)
picture.save(sys.argv[2], optimize=True)
END
echo "wrote docs/report.png: look at it before you commit it"
