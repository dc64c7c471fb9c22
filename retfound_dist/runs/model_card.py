"""The model card beside exported weights: data, recipe, evaluation with intervals, limits, licence.

It is made from committed files: the checkpoint's config, the shard set's manifest, the run's evaluations. The
card says what is not known, and never leaves it out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from retfound_dist.errors import ConfigError, RetfoundError
from retfound_dist.files.untrusted_text import code, markdown
from retfound_dist.formats import url_kinds
from retfound_dist.formats.checkpoint_folder import (
    evaluation_url,
    is_checkpoint,
    read_commit,
    resolve,
)
from retfound_dist.formats.content_identity import set_fingerprint
from retfound_dist.formats.score_files import ScoreFile
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.io import output_files, storage
from retfound_dist.runs.run_facts import read_run_file
from retfound_dist.runs.run_page import SCORES

PARTS = {"auto": "auto: all but val and test"}
NON_COMMERCIAL = "CC BY-NC 4.0"
_PUBLISHED_WEIGHTS = (
    (re.compile(r"retfound|oct_weights|cfp_weights", re.I), "RETFound's", NON_COMMERCIAL),
    (re.compile(r"mae[_-]?(pretrain|finetuned|visualize)|mae_vit", re.I), "MAE's", NON_COMMERCIAL),
)
"""Published weights: the pattern of their files' names, whose they are, and their licence (see NOTICE)."""


_IMAGE_FACTS = {"grey", "colour", "median_height", "median_width", "mean", "std"}
"""The values of the manifest's `image` that a card shows."""


@dataclass(frozen=True)
class Card:
    """The values that a card shows."""

    name: str
    origin: str
    """Where the weights were read."""
    parameters: int
    """Number of exported parameters."""
    weight_format: str
    step: int | None = None
    samples: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    """The run's config; empty where the weights came without one."""
    manifest: Manifest | None = None
    data_fault: str = ""
    """Why the manifest could not be read."""
    scores: Mapping[str, Any] | None = None
    """The metrics.json of this checkpoint's evaluation."""
    scores_fault: str = ""
    """Why metrics.json could not be read."""


def export_command(checkpoint: str, weight_format: str, out: str, force: bool = False) -> int:
    """`retfound export`: writes the weights, and their card beside them."""
    # Imported here because it loads torch, which lists and pages of runs do not need.
    from retfound_dist.model.weights.export import encoder_only, export
    from retfound_dist.model.weights.weight_files import read_weights

    checkpoint = resolve(checkpoint)
    weights = read_weights(checkpoint)
    check_output(out, weight_format, force)
    drops_decoder = weight_format in ("timm", "hf")
    state = encoder_only(weights.state) if drops_decoder else weights.state
    parameters = sum(value.numel() for value in state.values())
    has_no_decoder = drops_decoder or not weights.has_decoder
    card = make_weight_card(
        storage.name(out), checkpoint, weight_format, parameters, weights.meta, has_no_decoder
    )
    # The weights first: the card holds their size, by which a later export recognizes them as its own.
    size = export(weights, weight_format, out)
    card_file = card_url(out, weight_format)
    storage.write_text(card_file, card.replace("\n---\n", f"\n---\n<!-- {_signature(size)} -->\n", 1))
    if weights.remark:
        print(weights.remark)
    print(
        f"wrote {len(weights.state)} tensors of {checkpoint} to {out} (format {weight_format}) "
        f"and their card to {card_file}"
    )
    return 0


def check_output(out: str, weight_format: str, force: bool) -> None:
    """ConfigError where the export would replace files that `retfound export` did not write."""
    existing_kind = url_kinds.kind_at(out)
    if existing_kind in (
        url_kinds.RUN,
        url_kinds.CHECKPOINT,
        url_kinds.SHARDS,
        url_kinds.EVALUATION,
        url_kinds.COMPARISON,
    ):
        raise ConfigError(f"--out {out} is {existing_kind}: give another file or folder for the weights")
    is_hub_folder = weight_format == "hf"
    if not is_hub_folder and storage.is_folder(out):
        raise ConfigError(f"--out {out} is a folder, but this format is a single file: give {out}/NAME")
    if is_hub_folder and storage.exists(out) and not storage.is_folder(out):
        raise ConfigError(f"--out {out} is a file, but --format hf writes a folder: give another --out")
    card = card_url(out, weight_format)
    weights = storage.join(out, "model.safetensors") if is_hub_folder else out
    others = [storage.join(out, "config.json")] if is_hub_folder else []
    existing = [url for url in (weights, card, *others) if storage.exists(url)]
    if force or not existing:
        return
    card_text = storage.read_bytes(card).decode(errors="replace") if card in existing else ""
    has_mark = output_files.mark("export") in card_text
    if not has_mark or (weights in existing and _signature(storage.size(weights)) not in card_text):
        raise output_files.foreign_output_error(existing[0], "export")


def _signature(size: int) -> str:
    """The text by which a card marks the weights beside it as written by `retfound export`."""
    return f"{output_files.mark('export')}, {size} bytes"


def make_weight_card(
    name: str, origin: str, weight_format: str, parameters: int, meta: Mapping[str, Any], encoder_only: bool
) -> str:
    """The card of exported weights; `meta`: step, samples and config where they are known."""
    config = meta.get("config") or {}
    # Weight files of other programs may have a config of another shape, which a card cannot show.
    config = config if {"data", "model", "optim", "train"} <= config.keys() else {}
    manifest, fault = _read_manifest(config)
    card = Card(
        name,
        origin,
        parameters,
        weight_format,
        meta.get("step"),
        meta.get("samples"),
        config,
        manifest,
        fault,
        *_read_scores(origin, meta.get("step")),
    )
    return render(card, encoder_only)


def render(card: Card, encoder_only: bool) -> str:
    """The card as Markdown."""
    loader = PackageLoader("retfound_dist.runs", ".")
    templates = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    templates.filters.update(words=markdown, code=code)
    init = card.config.get("model", {}).get("init", "")
    whose, licence = licence_of(original_weights(init))
    return templates.get_template("card.md.j2").render(
        card=card,
        encoder_only=encoder_only,
        init=init,
        whose=whose,
        licence=licence,
        config=card.config,
        sources=_sources(card.manifest),
        scores=_score_rows(card.scores),
        image=card.manifest.image if card.manifest and card.manifest.image.keys() >= _IMAGE_FACTS else {},
        trained_part=PARTS.get(split := card.config.get("data", {}).get("split", ""), split),
        fingerprint=set_fingerprint(card.manifest.shards)[:16] if card.manifest else "",
    )


def original_weights(init: str, max_length: int = 8) -> str:
    """The first weights of a chain of warm starts: follows each checkpoint to the weights it began from."""
    # Limited, because configs may name each other in a circle.
    for _ in range(max_length):
        try:
            if not init or init == "none" or not is_checkpoint(init):
                break
            init = read_commit(init).config["model"]["init"]
        except (RetfoundError, KeyError):
            break
    return init


def licence_of(init: str) -> tuple[str, str]:
    """(owner, licence) of starting weights by their name; both are empty where they are not known."""
    if init == "none":
        return "nobody's", "none"
    for pattern, whose, licence in _PUBLISHED_WEIGHTS:
        if pattern.search(init):
            return whose, licence
    return "", ""


def card_url(out: str, weight_format: str) -> str:
    """The card's file: README.md in a folder, as model hubs expect it, else beside the weights."""
    return storage.join(out, "README.md") if weight_format == "hf" else f"{out}.md"


def _read_manifest(config: Mapping[str, Any]) -> tuple[Manifest | None, str]:
    url = config.get("data", {}).get("shards", "")
    if not url:
        return None, "the weights came without a config"
    try:
        return read_manifest(url, config["data"].get("first_shards", 0)), ""
    except RetfoundError as error:
        return None, " ".join(str(error).split())


def _read_scores(origin: str, step: int | None) -> tuple[Mapping[str, Any] | None, str]:
    """The scores in the checkpoint's run, and why they cannot be read; (None, "") where there are none."""
    run, separator, _ = origin.rstrip("/").rpartition("/checkpoints/")
    if not separator or step is None:
        return None, ""
    tree, fault = read_run_file(evaluation_url(run, step), "metrics.json", ScoreFile)
    return (dict(tree) if tree else None), fault


def _sources(manifest: Manifest | None) -> list[dict[str, Any]]:
    """Name, kind and counts of each source, and nothing about a person."""
    if manifest is None:
        return []
    return [
        {
            "name": name,
            "kind": tree.get("kind", ""),
            **{k: tree.get(k, 0) for k in ("samples", "patients", "volumes")},
        }
        for name, tree in manifest.sources.items()
    ]


def _score_rows(metrics: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    rows = []
    for key, label in SCORES.items() if metrics else ():
        value, span = metrics["macro"].get(key), metrics.get("ci95", {}).get("macro", {}).get(key)  # type: ignore[index,union-attr]
        if value is not None:
            rows.append((label, f"{value:.3f}", _interval_text(span)))
    return rows


def _interval_text(span: Sequence[float] | None) -> str:
    return f"{span[0]:.3f} to {span[1]:.3f}" if span else "not known"
