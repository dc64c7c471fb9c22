"""Pictures of the page, from pictures.json: reconstructions and the worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from retfound_dist.evaluate.pixels.image_encoding import data_uri, decode_picture, encode_picture, overlay
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.results.page_images import DIFFERENCE_GAIN
from retfound_dist.evaluate.scores.unit_wording import unit_noun

MAX_ROWS = 6
"""Number of rows of a comparison with their own pictures and plots."""
MAX_MISTAKES = 3
"""Number of mistakes for each row of a comparison."""
_MAX_BARS = 3
"""Number of classes with a probability bar, the likeliest first; the true class is always shown."""
T = TypeVar("T")


def choose_rows(rows: Mapping[str, T], max_rows: int = MAX_ROWS) -> dict[str, T]:
    """At most `max_rows` rows, evenly spread, with the first and the last."""
    names = list(rows)
    if len(names) > max_rows:
        names = [names[round(i * (len(names) - 1) / (max_rows - 1))] for i in range(max_rows)]
    return {name: rows[name] for name in names}


def reconstruction_blocks(rows: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """A block for each test image: a column with the image and its mask, then a column for each checkpoint.

    A single row shows the checkpoints of its run. Several rows show one checkpoint each. Rows with other
    images or masks (size, patch, mask ratio) have their own blocks.
    """
    groups: dict[tuple[str, ...], list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]] = {}
    for name, row in rows.items():
        tree = row.pictures.get("reconstructions")
        if tree:
            columns = tree["checkpoints"] if len(rows) == 1 else tree["checkpoints"][-1:]
            # The key is the masked images, so rows share a block only where images and masks are equal.
            group = groups.setdefault(tuple(tree["masked"]), [])
            for column in columns:
                group.append((name if len(rows) > 1 else _step_title(column["step"]), column, tree))
    return [_image_block(group, i) for group in groups.values() for i in range(len(group[0][2]["labels"]))]


def _image_block(group: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]], i: int) -> dict[str, Any]:
    """Image number `i`, then its reconstruction by each of the checkpoints."""
    first = group[0][2]
    columns = [_column("", original=first["original"][i], masked=first["masked"][i])]
    for name, column, _ in group:
        reconstructed, difference = column["reconstruction"][i], column["difference"][i]
        columns.append(
            _column(name, reconstructed=reconstructed, **{f"difference \u00d7 {DIFFERENCE_GAIN}": difference})
        )
    # With a single checkpoint each tile gets its own column.
    if len(columns) == 2:
        columns = [{"name": c["name"], "tiles": [tile]} for c in columns for tile in c["tiles"]]
    return {"label": first["labels"][i], "columns": columns}


def _column(name: str, **tiles: str) -> dict[str, Any]:
    return {"name": name, "tiles": [(caption, data_uri(text)) for caption, text in tiles.items()]}


def mistake_groups(rows: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """The worst mistakes of each row that has them, with two heat maps and probabilities."""
    groups = []
    max_cards = MAX_MISTAKES if len(rows) > 1 else None
    for name, row in rows.items():
        mistakes = row.pictures.get("mistakes")
        if mistakes:
            groups.append(
                {
                    "name": name,
                    "seed": mistakes["seed"],
                    "wrong": mistakes["wrong"],
                    "tested": len(row.keys),
                    "noun": unit_noun(row.metrics),
                    "cards": [_mistake_card(one) for one in mistakes["images"][:max_cards]],
                }
            )
    return groups


def _mistake_card(mistake: Mapping[str, Any]) -> dict[str, Any]:
    """One misclassified image: its heatmaps and the probabilities of the likeliest classes."""
    pixels = decode_picture(mistake["image"])
    by_probability = sorted(mistake["probabilities"].items(), key=lambda pair: -pair[1])
    shown_classes = [
        pair for index, pair in enumerate(by_probability) if index < _MAX_BARS or pair[0] == mistake["label"]
    ]
    return {
        "label": mistake["label"],
        "predicted": mistake["predicted"],
        "key": mistake["key"],
        "tiles": [
            ("image", data_uri(mistake["image"])),
            # A family without attention has no roll-out.
            *(
                [("attention", data_uri(encode_picture(overlay(pixels, mistake["rollout"]))))]
                if "rollout" in mistake
                else []
            ),
            (
                f"evidence for {mistake['predicted']}",
                data_uri(encode_picture(overlay(pixels, mistake["gradient"]))),
            ),
        ],
        "bars": [{"name": c, "p": p, "true": c == mistake["label"]} for c, p in shown_classes],
    }


def _step_title(step: int | None) -> str:
    return "these weights" if step is None else f"step {step:,}"
