"""Detects what is stored at a URL: a run, a checkpoint, a shard set, images, and so on.

Errors use it: if a run is given where a shard set is needed, the error says that it is a run and what to give
instead.
"""

from __future__ import annotations

import re

from retfound_dist.errors import RecordError, StorageError
from retfound_dist.files.image_files import IMAGE_EXTENSIONS
from retfound_dist.formats.run_config import read_config
from retfound_dist.io import storage

NOTHING, EMPTY = "nothing", "an empty folder"
FILE, FOLDER = "a file", "a folder of other files"
SHARDS, TARS = "a shard set", "a folder of tar files without a manifest"
UNFINISHED_SHARDS = "a shard set whose packing was not finished"
RUN, CHECKPOINT, UNCOMMITTED = "a run", "a checkpoint", "a checkpoint that was never committed"
EVALUATION, COMPARISON, SUITE = "an evaluation", "a comparison", "a suite"
WEIGHTS, MODEL_FOLDER = "a weights file", "a model folder for timm or a hub"
IMAGE, IMAGES = "an image", "a folder of images"
_EXTENSIONS = {
    WEIGHTS: (".safetensors", ".pth", ".pt", ".bin", ".ckpt"),
    IMAGE: (*IMAGE_EXTENSIONS, ".dcm"),
}
# The manifest first: a set that is being packed again has both, and readers still see the old set.
_KIND_BY_FILE = (
    ("manifest.json", SHARDS),
    ("packing.json", UNFINISHED_SHARDS),
    ("COMMIT.json", CHECKPOINT),
    ("suite.json", SUITE),
    ("compare.json", COMPARISON),
    ("metrics.json", EVALUATION),
)
_PACK_COMMAND = "retfound pack configs/pack_folder.toml source.path={url} out.url=SHARDS"
_ANY_OTHER_KIND = ""
_ADVICE: dict[str, dict[str, str]] = {
    SHARDS: {
        NOTHING: "check the URL, or pack your images to it first: retfound pack CONFIG.toml out.url={url}",
        IMAGES: f"pack it first: {_PACK_COMMAND}",
        IMAGE: f"pack its folder first: {_PACK_COMMAND.replace('{url}', 'IMAGES')}",
        UNFINISHED_SHARDS: "run the same `retfound pack` command again, it continues where it stopped",
        RUN: "give the shard set it was trained on, which is data.shards in its config.json",
        _ANY_OTHER_KIND: "give a folder that `retfound pack` wrote, or pack your images: "
        + _PACK_COMMAND.replace("{url}", "IMAGES"),
    },
    RUN: {
        NOTHING: "check the URL",
        CHECKPOINT: "give the folder of its run, two levels up",
        UNCOMMITTED: "give the folder of its run, two levels up",
        _ANY_OTHER_KIND: "give a folder that `retfound pretrain` wrote; `retfound runs FOLDER` lists them",
    },
    WEIGHTS: {
        NOTHING: "check the path, or give `none` or the name of a timm model",
        RUN: "give one of its checkpoints, {url}/checkpoints/step_...",
        UNCOMMITTED: "its save was interrupted; give an earlier checkpoint of the run",
        EVALUATION: "give the checkpoint that was evaluated, which is checkpoint.url in its metrics.json",
        SHARDS: "give a checkpoint or weights file; images belong in another argument",
        IMAGES: "give a checkpoint or weights file; images belong in another argument",
        IMAGE: "give a checkpoint or weights file; images belong in another argument",
        MODEL_FOLDER: "give the model.safetensors in it",
        _ANY_OTHER_KIND: "give a run, a committed checkpoint (it has a COMMIT.json) or a weights file",
    },
}
"""Wanted kind -> stored kind -> what to give instead."""
_STEP = re.compile(r"^step_\d{8,}$")


def kind_at(url: str) -> str:
    """The kind of what is stored at a URL, one of the constants above. StorageError where the store fails."""
    if not storage.is_folder(url):
        return _kind_of_file(storage.name(url)) if storage.exists(url) else NOTHING
    names = set(storage.list_names(url))
    if not names:
        return EMPTY
    # The file name is not enough: folders of Hugging Face models have a config.json too.
    if "config.json" in names and is_run(url):
        return RUN
    kind = next((kind for file, kind in _KIND_BY_FILE if file in names), None)
    if kind:
        return kind
    if _STEP.match(storage.name(url)) and "checkpoints/step_" in url:
        return UNCOMMITTED
    if "config.json" in names and "model.safetensors" in names:
        return MODEL_FOLDER
    if any(name.endswith(".tar") for name in names):
        return TARS
    return IMAGES if _holds_images(url, names) else FOLDER


def is_run(url: str) -> bool:
    """Whether the folder's config.json belongs to a pretraining run."""
    return not not_run_reason(url)


def not_run_reason(url: str) -> str:
    """Why a folder with a config.json is not a run; empty where it is one."""
    try:
        read_config(url, remedy="")
    except (StorageError, RecordError) as error:
        return str(error).replace(storage.join(url, "config.json"), "its config.json", 1)
    return ""


def wrong_kind_message(url: str, wanted: str) -> str:
    """The text of an error, such as `URL is a run, not a shard set: give the shard set it was trained on`.

    `wanted`: the kind that a command needs there: SHARDS, RUN or WEIGHTS.
    """
    stored, advice = kind_at(url), _ADVICE[wanted]
    wanted_name = "a checkpoint or weights file" if wanted == WEIGHTS else wanted
    if stored == NOTHING:
        fault = f"there {'are no weights' if wanted == WEIGHTS else 'is nothing'} at {url}"
    elif stored == wanted:
        # A damaged set is still a set: "is a shard set, not a shard set" would not help.
        fault = f"{url} is {stored}"
    else:
        fault = f"{url} is {stored}, not {wanted_name}"
    return f"{fault}: {advice.get(stored, advice[_ANY_OTHER_KIND]).format(url=url)}"


def _kind_of_file(name: str) -> str:
    return next((kind for kind, extensions in _EXTENSIONS.items() if name.lower().endswith(extensions)), FILE)


def _holds_images(url: str, names: set[str], depth: int = 2) -> bool:
    """Whether there are images in the folder or in its first three folders, `depth` levels down."""
    # Only a few folders: this runs while an error is reported, and a folder on a slow store may have
    # thousands.
    if any(_kind_of_file(name) == IMAGE for name in names):
        return True
    if depth == 0:
        return False
    for name in storage.list_folders(url)[:3]:
        inner = storage.join(url, name)
        if _holds_images(inner, set(storage.list_names(inner)), depth - 1):
            return True
    return False
