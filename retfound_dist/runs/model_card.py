"""The model card beside exported weights: data, recipe, evaluation with intervals, limits, licence.

Written from what is committed (the checkpoint's config, the shard set's manifest, the run's evaluations);
what cannot be read is said to be unknown, never left out.
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
from retfound_dist.runs.readable_logs import read_part
from retfound_dist.runs.run_page import SCORES

PARTS = {"auto": "auto: all but val and test"}
NON_COMMERCIAL = "CC BY-NC 4.0"
_KNOWN = (
    (re.compile(r"retfound|oct_weights|cfp_weights", re.I), "RETFound's", NON_COMMERCIAL),
    (re.compile(r"mae[_-]?(pretrain|finetuned|visualize)|mae_vit", re.I), "MAE's", NON_COMMERCIAL),
)
"""Published weights by their files' names, whose they are and their licence (NOTICE)."""


_SHOWN = {"grey", "colour", "median_height", "median_width", "mean", "std"}
"""Of the manifest's `image`, what a card tells."""


@dataclass(frozen=True)
class Card:
    """What a card is made of."""

    name: str
    origin: str
    """Where the weights were read."""
    parameters: int
    """Of what was exported."""
    kind: str
    """The format."""
    step: int | None = None
    samples: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    """The run's; empty where the weights came without."""
    manifest: Manifest | None = None
    data_fault: str = ""
    """Why the manifest could not be read."""
    scores: Mapping[str, Any] | None = None
    """metrics.json of this checkpoint's evaluation."""
    scores_fault: str = ""
    """Why it could not be read."""


def export_command(checkpoint: str, kind: str, out: str, force: bool = False) -> int:
    """`retfound export`: the weights, and their card beside them."""
    # Imported here because it loads torch: lists and pages of runs do without.
    from retfound_dist.model.weights.export import encoder_only, export
    from retfound_dist.model.weights.weight_files import read_weights

    checkpoint = resolve(checkpoint)
    weights = read_weights(checkpoint)
    check_exported(out, kind, force)
    bare = kind in ("timm", "hf")
    state = encoder_only(weights.state) if bare else weights.state
    numbers, where = sum(value.numel() for value in state.values()), card_place(out, kind)
    only = bare or not weights.has_decoder
    card = make_card(storage.name(out), checkpoint, kind, numbers, weights.meta, only)
    # The weights first: the card holds their size, by which a later export knows the file beside it as
    # ours.
    size = export(weights, kind, out)
    storage.write_text(where, card.replace("\n---\n", f"\n---\n<!-- {_signature(size)} -->\n", 1))
    if weights.remark:
        print(weights.remark)
    print(f"{len(weights.state)} tensors of {checkpoint} written to {out} ({kind}); their card: {where}")
    return 0


def check_exported(out: str, kind: str, force: bool) -> None:
    """ConfigError where weights or a card stand that `retfound export` did not write, or changed ones."""
    kind_there = url_kinds.kind_at(out)
    if kind_there in (
        url_kinds.RUN,
        url_kinds.CHECKPOINT,
        url_kinds.SHARDS,
        url_kinds.EVALUATION,
        url_kinds.COMPARISON,
    ):
        raise ConfigError(f"--out {out} is {kind_there}: give exported weights a place of their own")
    if kind != "hf" and storage.is_folder(out):
        raise ConfigError(f"--out {out} is a folder, the name of a file is wanted: give {out}/NAME")
    if kind == "hf" and storage.exists(out) and not storage.is_folder(out):
        raise ConfigError(f"--out {out} is a file, a folder is wanted with --format hf: give another --out")
    card, weights = card_place(out, kind), storage.join(out, "model.safetensors") if kind == "hf" else out
    others = [storage.join(out, "config.json")] if kind == "hf" else []
    standing = [place for place in (weights, card, *others) if storage.exists(place)]
    if force or not standing:
        return
    card_text = storage.read_bytes(card).decode(errors="replace") if card in standing else ""
    ours = output_files.mark("export") in card_text
    if not ours or (weights in standing and _signature(storage.size(weights)) not in card_text):
        raise output_files.foreign_output_error(standing[0], "export")


def _signature(size: int) -> str:
    """How a card says that the file it lies beside is ours."""
    return f"{output_files.mark('export')}, {size} bytes"


def make_card(
    name: str, origin: str, kind: str, parameters: int, meta: Mapping[str, Any], encoder_only: bool
) -> str:
    """The card of weights that were exported; `meta`: step, samples and config where they are known."""
    config = meta.get("config") or {}
    # Weight files of others may bring a config of another shape: a card shows only one of ours.
    config = config if {"data", "model", "optim", "train"} <= config.keys() else {}
    manifest, fault = _manifest(config)
    card = Card(
        name,
        origin,
        parameters,
        kind,
        meta.get("step"),
        meta.get("samples"),
        config,
        manifest,
        fault,
        *_scores(origin, meta.get("step")),
    )
    return render(card, encoder_only)


def render(card: Card, encoder_only: bool) -> str:
    """The card as Markdown."""
    loader = PackageLoader("retfound_dist.runs", ".")
    templates = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    templates.filters.update(words=markdown, code=code)
    init = card.config.get("model", {}).get("init", "")
    whose, licence = licence_of(first_weights(init))
    return templates.get_template("card.md.j2").render(
        card=card,
        encoder_only=encoder_only,
        init=init,
        whose=whose,
        licence=licence,
        config=card.config,
        sources=_sources(card.manifest),
        scores=_score_rows(card.scores),
        image=card.manifest.image if card.manifest and card.manifest.image.keys() >= _SHOWN else {},
        trained_part=PARTS.get(split := card.config.get("data", {}).get("split", ""), split),
        fingerprint=set_fingerprint(card.manifest.shards)[:16] if card.manifest else "",
    )


def first_weights(init: str, longest: int = 8) -> str:
    """What a chain of warm starts began from: a run's own checkpoint is followed to where that began."""
    # Bounded: configs may name each other in a circle.
    for _ in range(longest):
        try:
            if not init or init == "none" or not is_checkpoint(init):
                break
            init = read_commit(init).config["model"]["init"]
        except (RetfoundError, KeyError):
            break
    return init


def licence_of(init: str) -> tuple[str, str]:
    """(whose, licence) of starting weights by their name; empty licence: not known."""
    if init == "none":
        return "nobody's", "none"
    for pattern, whose, licence in _KNOWN:
        if pattern.search(init):
            return whose, licence
    return "", ""


def card_place(out: str, kind: str) -> str:
    """Where the card goes: README.md in a folder (where hubs look for it), else beside the file."""
    return storage.join(out, "README.md") if kind == "hf" else f"{out}.md"


def _manifest(config: Mapping[str, Any]) -> tuple[Manifest | None, str]:
    url = config.get("data", {}).get("shards", "")
    if not url:
        return None, "the weights came without a config"
    try:
        return read_manifest(url, config["data"].get("first_shards", 0)), ""
    except RetfoundError as error:
        return None, " ".join(str(error).split())


def _scores(origin: str, step: int | None) -> tuple[Mapping[str, Any] | None, str]:
    """The scores beside the checkpoint's run, and why they cannot be read; neither where there are none."""
    run, separator, _ = origin.rstrip("/").rpartition("/checkpoints/")
    if not separator or step is None:
        return None, ""
    tree, fault = read_part(evaluation_url(run, step), "metrics.json", ScoreFile)
    return (dict(tree) if tree else None), fault


def _sources(manifest: Manifest | None) -> list[dict[str, Any]]:
    """Of each source its name, kind and counts; counts alone, nothing of a person."""
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
            rows.append((label, f"{value:.3f}", _span(span)))
    return rows


def _span(span: Sequence[float] | None) -> str:
    return f"{span[0]:.3f} to {span[1]:.3f}" if span else "not given"
