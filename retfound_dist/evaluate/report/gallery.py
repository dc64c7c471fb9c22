"""Pictures on the page, from what pictures.json holds: reconstructions and the worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from retfound_dist.evaluate.data.image_encoding import data_uri, decode_picture, encode_picture, overlay
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.results.page_images import GAIN

MOST_ROWS = 6
"""Rows of a comparison whose own pictures and plots are shown; of more, the first, the last, some between."""
MOST_CARDS = 3
"""Mistakes of each row of a comparison."""
_BARS = 3
"""Classes whose probability is shown beside a mistake, the likeliest first; the true one is always shown."""
T = TypeVar("T")


def pick_rows(rows: Mapping[str, T], most: int = MOST_ROWS) -> dict[str, T]:
    """At most so many rows, the first and the last among them, evenly spread."""
    names = list(rows)
    if len(names) > most:
        names = [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]
    return {name: rows[name] for name in names}


def reconstruction_blocks(rows: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """A block for each test image: a column with the image and its mask, then one for each checkpoint.

    One row shows the checkpoints of its run; several show the one that each was made from. Rows with other
    images or masks (size, patch, mask ratio) get blocks of their own.
    """
    groups: dict[tuple[str, ...], list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]] = {}
    for name, row in rows.items():
        tree = row.pictures.get("reconstructions")
        if tree:
            columns = tree["checkpoints"] if len(rows) == 1 else tree["checkpoints"][-1:]
            # The masked images are the key: rows share a block only where images and masks are the same.
            group = groups.setdefault(tuple(tree["masked"]), [])
            for column in columns:
                group.append((name if len(rows) > 1 else _of_step(column["step"]), column, tree))
    return [_block(group, i) for group in groups.values() for i in range(len(group[0][2]["labels"]))]


def _block(group: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]], i: int) -> dict[str, Any]:
    first = group[0][2]
    columns = [_column("", original=first["original"][i], masked=first["masked"][i])]
    for name, column, _ in group:
        filled_in, difference = column["reconstruction"][i], column["difference"][i]
        columns.append(_column(name, reconstructed=filled_in, **{f"difference \u00d7 {GAIN}": difference}))
    # With a single checkpoint there is room for a column for each tile.
    if len(columns) == 2:
        columns = [{"name": c["name"], "tiles": [tile]} for c in columns for tile in c["tiles"]]
    return {"label": first["labels"][i], "columns": columns}


def _column(name: str, **tiles: str) -> dict[str, Any]:
    return {"name": name, "tiles": [(caption, data_uri(text)) for caption, text in tiles.items()]}


def mistake_groups(rows: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """For each row that has them the worst mistakes, with two heat maps and probabilities each."""
    groups = []
    most = MOST_CARDS if len(rows) > 1 else None
    for name, row in rows.items():
        mistakes = row.pictures.get("mistakes")
        if mistakes:
            groups.append(
                {
                    "name": name,
                    "seed": mistakes["seed"],
                    "wrong": mistakes["wrong"],
                    "images": len(row.keys),
                    "cards": [_card(one) for one in mistakes["images"][:most]],
                }
            )
    return groups


def _card(mistake: Mapping[str, Any]) -> dict[str, Any]:
    pixels = decode_picture(mistake["image"])
    by_probability = sorted(mistake["probabilities"].items(), key=lambda pair: -pair[1])
    shown_classes = [
        pair for place, pair in enumerate(by_probability) if place < _BARS or pair[0] == mistake["label"]
    ]
    return {
        "label": mistake["label"],
        "predicted": mistake["predicted"],
        "key": mistake["key"],
        "tiles": [
            ("image", data_uri(mistake["image"])),
            ("attention", data_uri(encode_picture(overlay(pixels, mistake["rollout"])))),
            (
                f"speaks for {mistake['predicted']}",
                data_uri(encode_picture(overlay(pixels, mistake["gradient"]))),
            ),
        ],
        "bars": [{"name": c, "p": p, "true": c == mistake["label"]} for c, p in shown_classes],
    }


def _of_step(step: int | None) -> str:
    return "these weights" if step is None else f"step {step:,}"
