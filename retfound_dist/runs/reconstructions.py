"""Reconstructions over time: the same images with the same masks, filled in by some of a run's checkpoints.

Each strip is kept in the run's `reconstructions/` (`step_00000100.png`, `original.png`, `masked.png`), so
that it is drawn once. Drawing needs torch, the weights and the shards; showing what was drawn does not.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from retfound_dist.config.loading import build
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import RetfoundError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.shard_set import read_manifest
from retfound_dist.io import storage
from retfound_dist.runs.run_list import RunFacts
from retfound_dist.stream.held_out_part import held_out_part

FOLDER = "reconstructions"
IMAGES, STEPS = 5, 5
"""Images in a strip, and checkpoints that are shown: the first, the last and some between."""
SEED = 0
"""Of the choice of images and their masks."""
ORIGINAL, MASKED = "original", "masked"


@dataclass(frozen=True)
class Pictures:
    """Rows of the page: a name and a strip as a data URI."""

    rows: list[tuple[str, str]]
    note: str


def spread(steps: Sequence[int], most: int = STEPS) -> list[int]:
    """At most so many of them, the first and the last among them, evenly spread."""
    if len(steps) <= most:
        return list(steps)
    places = [round(i * (len(steps) - 1) / (most - 1)) for i in range(most)]
    return [steps[place] for place in places]


def kept_pictures(run: RunFacts) -> Pictures | None:
    """What was drawn before; None where nothing was."""
    folder = storage.join(run.url, FOLDER)
    steps = sorted(
        int(n[5:-4]) for n in storage.list_names(folder) if n.startswith("step_") and n.endswith(".png")
    )
    if not steps:
        return None
    names = {ORIGINAL: ORIGINAL, MASKED: "removed patches grey"}
    names |= {f"step_{step:08d}": f"step {step:,}" for step in spread(steps)}
    return Pictures([(text, _uri(_strip(run, name))) for name, text in names.items()], _note(run))


def draw_pictures(run: RunFacts, say: Callable[[str], None]) -> Pictures | None:
    """Draw what is missing, then as `kept_pictures`; a run whose shards or weights are gone says so."""
    try:
        # Errors are reported and what was drawn before is shown: the weights or shards may be gone by now.
        shown = spread(sorted(run.checkpoints))
        missing = [s for s in shown if not storage.exists(_strip(run, f"step_{s:08d}"))]
        if missing:
            _draw(run, missing)
    except RetfoundError as error:
        say(f"no reconstructions of {run.url}: {error}")
    return kept_pictures(run)


def _draw(run: RunFacts, steps: Sequence[int]) -> None:
    # Imported here because they load torch, which showing kept strips does not need.
    from retfound_dist.evaluate.probe.reconstruct import png, reconstruct
    from retfound_dist.model.weights.weight_files import autoencoder_from, read_weights

    images = _images(run)
    for step in steps:
        model = autoencoder_from(read_weights(checkpoint_folder.checkpoint_url(run.url, step)))
        filled_in = reconstruct(model, images, SEED)
        for name, panels in (
            (ORIGINAL, [one.original for one in filled_in]),
            (MASKED, [one.masked for one in filled_in]),
            (f"step_{step:08d}", [one.reconstruction for one in filled_in]),
        ):
            if name.startswith("step_") or not storage.exists(_strip(run, name)):
                storage.write_bytes(_strip(run, name), png(_beside(panels)))


def _images(run: RunFacts) -> list[Any]:
    """Grey images (S, S) as the model sees them, whole: held-out ones where there are any."""
    from retfound_dist.runtime.world import World
    from retfound_dist.stream.loader import open_stream

    config = build(PretrainConfig, run.settings, where=run.url)
    manifest = read_manifest(config.data.shards, config.data.first_shards)
    part = held_out_part(config.data, manifest) or config.data.split
    count = min(IMAGES, sum(shard.samples for shard in manifest.part(part)))
    # Whole images without augmentation. No workers and no cache: five images are not worth starting or
    # filling them.
    whole = replace(config.data, split=part, workers=0, crop_scale=(1.0, 1.0), flip=0.0, cache_dir="")
    with open_stream(
        manifest, count, image_size=config.model.image_size, seed=SEED, world=World(), stop_step=1, data=whole
    ) as stream:
        images_NCHW = next(iter(stream)).images.numpy()
    return [image.mean(axis=0).round().astype("uint8") for image in images_NCHW]


def _beside(panels: Sequence[Any]) -> Any:
    import numpy as np

    gap = np.full((panels[0].shape[0], 4), 255, np.uint8)
    parts = [panels[0]]
    for panel in panels[1:]:
        parts += [gap, panel]
    return np.concatenate(parts, axis=1)


def _strip(run: RunFacts, name: str) -> str:
    return storage.join(run.url, FOLDER, f"{name}.png")


def _uri(url: str) -> str:
    return "data:image/png;base64," + base64.b64encode(storage.read_bytes(url)).decode()


def _note(run: RunFacts) -> str:
    kind = "Images held out from training" if run.held_out else "Images of the training set"
    text = f"{kind}, the same with the same masks at each checkpoint."
    if run.config["model"].get("norm_pix_loss"):
        text += " Brightness and contrast of each patch are taken from the original, as in MAE's figures."
    return text
