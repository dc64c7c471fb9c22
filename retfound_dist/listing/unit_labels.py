"""Labels of volumes, eyes or patients from a table of their own, where images have none.

    table = read_unit_labels("labels.csv")     # volume,label or patient,eye,label or patient,label
    labels, notes = table.match(images, "set")

Each image gets the label of its volume, its eye or its patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retfound_dist.errors import DataError
from retfound_dist.listing.image_lists import read_fields
from retfound_dist.listing.unit_names import ImageOrigin

_MAX_NAMED = 3
_EXAMPLE = "volume,label or patient,eye,label"
Key = tuple[str | None, ...]


@dataclass(frozen=True)
class UnitLabels:
    """A table of labels."""

    name: str
    fields: tuple[str, ...]
    """The columns that name a unit: some of `patient`, `eye` and `volume`."""
    labels: Mapping[Key, str]

    def match(self, images: Sequence[ImageOrigin], where: str) -> tuple[list[str], tuple[str, ...]]:
        """The label of each image, empty where its unit has none; notes about what does not match.

        DataError where no image matches. `where`: the set of images, for messages.
        """
        keys = [self._key(image) for image in images]
        labels = [self.labels.get(key, "") for key in keys]
        present = set(keys)
        absent = [" ".join(map(str, key)) for key in self.labels if key not in present]
        key_fields = " and ".join(self.fields)
        if not any(labels):
            raise DataError(
                f"data.labels={self.name}: none of its {len(self.labels):,} labels is for an image of "
                f"{where}: its {key_fields} must be written as in the set, for example "
                f"{self._example(images)}"
            )
        notes = []
        if missing := labels.count(""):
            first = images[labels.index("")].key
            notes.append(f"{missing:,} of {len(images):,} images are left out: {self.name} has no label for "
                         f"their {key_fields} (first {first})")  # fmt: skip
        if absent:
            examples = ", ".join(absent[:_MAX_NAMED]) + (", ..." if len(absent) > _MAX_NAMED else "")
            notes.append(
                f"{len(absent):,} of {len(self.labels):,} labels of {self.name} have no image: {examples}"
            )
        return labels, tuple(notes)

    def _key(self, image: ImageOrigin) -> Key:
        return tuple(getattr(image, field) for field in self.fields)

    def _example(self, images: Sequence[ImageOrigin]) -> str:
        count_by_key = Counter(" ".join(map(str, self._key(image))) for image in images)
        return ", ".join(list(count_by_key)[:_MAX_NAMED])


def read_unit_labels(path: str) -> UnitLabels:
    """Read a table with the columns `label` and `volume`, or `patient`, or `patient` and `eye`.

    DataError where columns are missing, or where a unit is listed with two labels.
    """
    name, rows = read_fields(path, ("label",), _EXAMPLE)
    fields: tuple[str, ...] = ()
    labels: dict[Key, str] = {}
    for line, row in rows:
        fields = tuple(field for field in ("patient", "eye", "volume") if field in row)
        if not fields or fields == ("eye",) or "file" in row:
            raise DataError(
                f"data.labels={name} must name volumes, eyes or patients, not files: its header must be such "
                f"as {_EXAMPLE}"
            )
        # A volume is of one eye, so its name says enough.
        fields = tuple(field for field in fields if field != "eye") if "volume" in fields else fields
        key, label = tuple(row[field] for field in fields), row["label"]
        if label is None or None in key:
            raise DataError(f"{name} line {line}: a cell is empty: fill it, or remove the line")
        if labels.setdefault(key, label) != label:
            raise DataError(
                f"{name} line {line}: {' '.join(map(str, key))} has two labels, {labels[key]} and {label}: "
                "keep one of them"
            )
    if not labels:
        raise DataError(f"data.labels={name} has no rows: give a table such as {_EXAMPLE}")
    return UnitLabels(name, fields, labels)
