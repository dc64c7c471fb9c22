#!/usr/bin/env bash
# The whole pipeline on this machine: images -> shards -> pretraining on two ranks -> comparison -> report
# -> predictions.
#   launch/demo.sh                    on generated B-scans
#   IMAGES=folder launch/demo.sh      on your own: a folder of class folders
# All results are in runs/demo (RUNS=folder: folder/demo). An earlier demo is moved to demo.previous.
set -euo pipefail
images=${IMAGES:+$(realpath "$IMAGES")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export RANKS_PER_NODE=2
# shellcheck source=launch/environment.sh
source launch/environment.sh
demo=${RUNS:-runs}/demo
marker=.made-by-the-demo
step=0

stop() {
  echo "demo: $*" >&2
  exit 2
}

heading() {
  step=$((step + 1))
  printf '\n[%d/6] %s\n' "$step" "$*"
}

attempt() {
  local started=$SECONDS
  "$@" || { local status=$?; echo "demo: step $step of 6 failed (exit $status): $*" >&2; exit "$status"; }
  echo "      done in $((SECONDS - started)) s"
}

prepare_folder() {
  if [ -e "$demo" ]; then
    [ -f "$demo/$marker" ] || stop "$demo exists and is not an earlier demo: move it, or set RUNS=folder"
    rm -rf "$demo.previous"
    mv "$demo" "$demo.previous"
    echo "moved the earlier demo to $demo.previous"
  fi
  mkdir -p "$demo"
  touch "$demo/$marker"
}

source_of_images=()
if [ -n "$images" ]; then
  [ -d "$images" ] || stop "IMAGES=$images is not a folder: set it to a folder of class folders"
  source_of_images=(source.kind=folder "source.path=$images")
fi
prepare_folder
echo "Results: $demo    Time on 2 cores: about 10 minutes"

heading "Packing ${images:-generated B-scans} into shards: half a minute -> $demo/shards"
attempt retfound pack configs/demo/pack.toml out.url="$demo/shards" "${source_of_images[@]}"

heading "Checking every shard against its manifest: a few seconds"
attempt retfound verify "$demo/shards"

heading "Pretraining a masked autoencoder on 2 ranks (ZeRO-2, bf16): about 4 minutes -> $demo/pretrain"
give_torchrun_time_for_a_save configs/demo/pretrain.toml
attempt torchrun --standalone --nproc-per-node=2 -m retfound_dist pretrain configs/demo/pretrain.toml \
  run.url="$demo/pretrain" data.shards="$demo/shards"

# checkpoints by step: the first and the last committed one
checkpoints=("$demo"/pretrain/checkpoints/step_*/COMMIT.json)
[ -f "${checkpoints[0]}" ] || stop "no committed checkpoint in $demo/pretrain/checkpoints"
early=${checkpoints[0]%/COMMIT.json}
last=${checkpoints[-1]%/COMMIT.json}

heading "Fine-tuning from nothing, from ${early##*/} and from ${last##*/}, and scoring: about 4 minutes"
unset OMP_NUM_THREADS
attempt retfound compare configs/demo/compare.toml data.path="$demo/shards" \
  weights.none=none weights.early="$early" weights.last="$last" \
  out.url="$demo/evaluate" out.report="$demo/report.html"
[ -s "$demo/report.html" ] || stop "no report at $demo/report.html"

classifiers=("$demo"/evaluate/*/classifier)
[ -f "${classifiers[0]}/classifier.json" ] || stop "no classifier in $demo/evaluate"
heading "Predicting the images with the classifier that is best on val: half a minute -> $demo/predictions.csv"
attempt retfound predict "${classifiers[0]}" "$demo/shards" \
  --out "$demo/predictions.csv" --html "$demo/predictions.html" --html-images 50

heading "Drawing original | masked | reconstruction | difference: a few seconds"
shards=("$demo"/shards/*.tar)
mkdir -p "$demo/samples"
tar -xf "${shards[-1]}" -C "$demo/samples"
mapfile -t pictures < <(find "$demo/samples" -name '*.jpg' -o -name '*.png' | sort | head -n 5)
attempt retfound reconstruct "$last" "${pictures[@]}" --out "$demo/reconstruction.png"

printf '\n'
python - "$demo/pretrain" <<'END'
import sys
from retfound_dist.formats.run_folder import read_metrics
loss = {row["step"]: row["loss"] for row in read_metrics(sys.argv[1])}
last = max(loss)
print(f"The loss:    {loss[10]:.3f} at step 10, {loss[last]:.3f} at step {last} ({loss[last] / loss[10] - 1:+.0%})")
END
printf 'The picture: %s\n' "$(realpath "$demo/reconstruction.png")"
printf 'The report:  %s\n' "$(realpath "$demo/report.html")"
printf 'Predictions: %s\n' "$(realpath "$demo/predictions.html")"
