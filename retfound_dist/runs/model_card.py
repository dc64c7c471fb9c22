"""The model card beside exported weights: data, recipe, evaluation with intervals, limits, licence.

It is made from committed files: the checkpoint's config, the shard set's manifest, the run's evaluations. The
card says what is not known, and never leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from retfound_dist.errors import RetfoundError
from retfound_dist.files.untrusted_text import code, markdown
from retfound_dist.formats.checkpoint_folder import evaluation_url
from retfound_dist.formats.content_identity import set_fingerprint
from retfound_dist.formats.score_files import ScoreFile
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.model.weights.licences import licence_of, original_weights
from retfound_dist.runs.run_facts import read_run_file
from retfound_dist.runs.run_page import SCORES

PARTS = {"auto": "auto: all but val and test"}
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
        scores=score_rows(card.scores),
        image=card.manifest.image if card.manifest and card.manifest.image.keys() >= _IMAGE_FACTS else {},
        trained_part=PARTS.get(split := card.config.get("data", {}).get("split", ""), split),
        fingerprint=set_fingerprint(card.manifest.shards)[:16] if card.manifest else "",
    )


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


def score_rows(metrics: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Name, value and interval of each score of a metrics.json that a card shows."""
    rows = []
    for key, label in SCORES.items() if metrics else ():
        value, span = metrics["macro"].get(key), metrics.get("ci95", {}).get("macro", {}).get(key)  # type: ignore[index,union-attr]
        if value is not None:
            rows.append((label, f"{value:.3f}", interval_text(span)))
    return rows


def interval_text(span: Sequence[float] | None) -> str:
    """An interval in words."""
    return f"{span[0]:.3f} to {span[1]:.3f}" if span else "not known"
