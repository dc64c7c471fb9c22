"""The files of an export: which may be replaced, and the card that marks them as ours."""

from __future__ import annotations

from retfound_dist.errors import ConfigError
from retfound_dist.formats import url_kinds
from retfound_dist.io import output_files, storage

FOLDER_FORMAT = "hf"
"""The format that is a folder; the others are one file."""
_OWN_KINDS = (
    url_kinds.RUN,
    url_kinds.CHECKPOINT,
    url_kinds.SHARDS,
    url_kinds.EVALUATION,
    url_kinds.COMPARISON,
)
GRAPH_FORMATS = ("onnx", "torchscript")
"""A network with its preparation, which runs without this repository. Of classifiers only."""


def check_output(out: str, kind: str, force: bool) -> None:
    """ConfigError where the export would replace files that `retfound export` did not write.

    `kind`: the format of the export.
    """
    existing_kind = url_kinds.kind_at(out)
    if existing_kind in _OWN_KINDS:
        raise ConfigError(f"--out {out} is {existing_kind}: give another file or folder for the weights")
    is_hub_folder = kind == FOLDER_FORMAT
    if not is_hub_folder and storage.is_folder(out):
        raise ConfigError(f"--out {out} is a folder, but this format is a single file: give {out}/NAME")
    if is_hub_folder and storage.exists(storage.join(out, "classifier.json")):
        raise ConfigError(f"--out {out} is a kept classifier: give another folder")
    if is_hub_folder and storage.exists(out) and not storage.is_folder(out):
        raise ConfigError(f"--out {out} is a file, but --format hf writes a folder: give another --out")
    card = card_url(out, kind)
    weights = storage.join(out, "model.safetensors") if is_hub_folder else out
    others = [storage.join(out, "config.json")] if is_hub_folder else []
    existing = [url for url in (weights, card, *others) if storage.exists(url)]
    if force or not existing:
        return
    card_text = storage.read_bytes(card).decode(errors="replace") if card in existing else ""
    has_mark = output_files.mark("export") in card_text
    if not has_mark or (weights in existing and _signature(storage.size(weights)) not in card_text):
        raise output_files.foreign_output_error(existing[0], "export")


def card_url(out: str, kind: str) -> str:
    """The card's file: README.md in a folder, as model hubs expect it, else beside the weights."""
    return storage.join(out, "README.md") if kind == FOLDER_FORMAT else f"{out}.md"


def write_card(out: str, kind: str, card: str, size: int) -> str:
    """Write the card of an export whose weights have `size` bytes; returns the card's URL.

    Call it after the weights are written: the size in the card is how a later export recognizes them as
    its own.
    """
    url = card_url(out, kind)
    storage.write_text(url, card.replace("\n---\n", f"\n---\n<!-- {_signature(size)} -->\n", 1))
    return url


def _signature(size: int) -> str:
    """The text by which a card marks the weights beside it as written by `retfound export`."""
    return f"{output_files.mark('export')}, {size} bytes"
