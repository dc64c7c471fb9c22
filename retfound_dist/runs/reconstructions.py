"""Reconstructions over time: some of a run's checkpoints reconstruct the same images with the same masks.

Each strip of images is saved in the run's `reconstructions/` (`step_00000100.png`, `original.png`,
`masked.png`), so it is drawn once. Drawing needs torch, the weights and the shards. Showing saved strips does
not.
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
from retfound_dist.runs.run_facts import RunFacts
from retfound_dist.stream.held_out_part import held_out_part

FOLDER = "reconstructions"
IMAGES, CHECKPOINTS = 5, 5
"""Images in a strip, and strips on a page: of the first checkpoint, the last and some between."""
SEED = 0
"""The seed that chooses the images and their masks."""
ORIGINAL, MASKED = "original", "masked"


@dataclass(frozen=True)
class Pictures:
    """Rows of the page, each a name and a strip as a data URI, and the note above them."""

    rows: list[tuple[str, str]]
    note: str


def evenly_spread(steps: Sequence[int], max_steps: int = CHECKPOINTS) -> list[int]:
    """At most `max_steps` of the steps, evenly spread, with the first and the last."""
    if len(steps) <= max_steps:
        return list(steps)
    places = [round(i * (len(steps) - 1) / (max_steps - 1)) for i in range(max_steps)]
    return [steps[place] for place in places]


def saved_pictures(run: RunFacts) -> Pictures | None:
    """The strips that were drawn before; None where there are none."""
    folder = storage.join(run.url, FOLDER)
    steps = sorted(
        int(name[5:-4])
        for name in storage.list_names(folder)
        if name.startswith("step_") and name.endswith(".png")
    )
    if not steps:
        return None
    titles = {ORIGINAL: ORIGINAL, MASKED: "removed patches in grey"}
    titles |= {f"step_{step:08d}": f"step {step:,}" for step in evenly_spread(steps)}
    return Pictures(
        [(title, _data_uri(_strip_url(run, name))) for name, title in titles.items()], _strip_note(run)
    )


def draw_pictures(run: RunFacts, warn: Callable[[str], None]) -> Pictures | None:
    """Draw the missing strips, then return all; errors go to `warn`, and the saved strips are returned."""
    # Errors do not stop the report: the weights or shards of an old run may be deleted by now.
    try:
        steps = evenly_spread(sorted(run.checkpoints))
        missing = [step for step in steps if not storage.exists(_strip_url(run, f"step_{step:08d}"))]
        if missing:
            _save_strips(run, missing)
    except RetfoundError as error:
        warn(f"cannot draw reconstructions of {run.url}: {error}")
    return saved_pictures(run)


def _save_strips(run: RunFacts, steps: Sequence[int]) -> None:
    """Reconstruct the images with the checkpoint of each step, and save a strip of each."""
    # Imported here because they load torch, which showing saved strips does not need.
    from retfound_dist.evaluate.probe.reconstruct import encode_png, reconstruct
    from retfound_dist.model.weights.weight_files import autoencoder_from, read_weights

    images = _images(run)
    for step in steps:
        model = autoencoder_from(read_weights(checkpoint_folder.checkpoint_url(run.url, step)))
        results = reconstruct(model, images, SEED)
        for name, panels in (
            (ORIGINAL, [result.original for result in results]),
            (MASKED, [result.masked for result in results]),
            (f"step_{step:08d}", [result.reconstruction for result in results]),
        ):
            if name.startswith("step_") or not storage.exists(_strip_url(run, name)):
                storage.write_bytes(_strip_url(run, name), encode_png(_join_panels(panels)))


def _images(run: RunFacts) -> list[Any]:
    """Whole grey images (S, S) as the model sees them: held-out ones where there are any."""
    from retfound_dist.runtime.world import World
    from retfound_dist.stream.loader import open_stream

    config = build(PretrainConfig, run.settings, where=run.url)
    manifest = read_manifest(config.data.shards, config.data.first_shards)
    part = held_out_part(config.data, manifest) or config.data.split
    count = min(IMAGES, sum(shard.samples for shard in manifest.part(part)))
    # Whole images without augmentation. No workers and no cache: five images are not worth starting or
    # filling them.
    data = replace(config.data, split=part, workers=0, crop_scale=(1.0, 1.0), flip=0.0, cache_dir="")
    with open_stream(
        manifest, count, image_size=config.model.image_size, seed=SEED, world=World(), stop_step=1, data=data
    ) as stream:
        images_NCHW = next(iter(stream)).images.numpy()
    return [image.mean(axis=0).round().astype("uint8") for image in images_NCHW]


def _join_panels(panels: Sequence[Any]) -> Any:
    """One strip of all panels, with white gaps between them."""
    import numpy as np

    gap = np.full((panels[0].shape[0], 4), 255, np.uint8)
    parts = [panels[0]]
    for panel in panels[1:]:
        parts += [gap, panel]
    return np.concatenate(parts, axis=1)


def _strip_url(run: RunFacts, name: str) -> str:
    return storage.join(run.url, FOLDER, f"{name}.png")


def _data_uri(url: str) -> str:
    return "data:image/png;base64," + base64.b64encode(storage.read_bytes(url)).decode()


def _strip_note(run: RunFacts) -> str:
    """The sentences above the strips."""
    images = "Images that are held out from training" if run.held_out_losses else "Images of the training set"
    text = f"{images}, with the same masks at each checkpoint."
    if run.config["model"].get("norm_pix_loss"):
        text += " Each patch has the brightness and contrast of the original, as in MAE's figures."
    return text
