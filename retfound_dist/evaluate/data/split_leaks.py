"""Finds the leaks of a split: one patient, one volume, or the same pixels, in two parts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.set_layouts import PARTS, LabelledImage
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.listing.split_units import KEEP_VOLUMES

_MAX_NAMED = 5


def pixel_digest(pixels_HW: Pixels) -> str:
    """A digest of the size and the grey values; equal images have equal digests."""
    # With the shape, because the same bytes can be 2 x 8 or 4 x 4 pixels.
    header = f"{pixels_HW.shape[0]}x{pixels_HW.shape[1]}:".encode()
    return hashlib.sha256(header + pixels_HW.tobytes()).hexdigest()


@dataclass(frozen=True)
class Leaks:
    """One sentence for each kind of leak; empty where there is none."""

    patients: str
    volumes: str
    """Volumes whose patient is not known."""
    pixels: str

    def check(
        self, split_source: str, where: str, allowed: bool, rule: str = KEEP_VOLUMES
    ) -> tuple[str, ...]:
        """The leaks as warnings; DataError where a split that was not made here leaks, unless `allowed`.

        Our own split, also one read back from its file, may separate identical images of unknown patients.
        This is only a warning. So are separated volumes with `data.unknown_patient=image`.
        """
        leak_lines = [line for line in (self.patients, self.volumes, self.pixels) if line]
        refused_always = [
            line for line in (self.patients, self.volumes if rule == KEEP_VOLUMES else "") if line
        ]
        refused_if_given = [line for line in leak_lines if line != self.volumes or line in refused_always]
        refused = {"given": refused_if_given, "file": refused_always}.get(split_source, [])
        if refused and not allowed:
            raise DataError(
                f"{where}: {'; '.join(refused)}: scores would be too good. "
                "Fix the split, or override with --allow-leak (data.allow_leak=true)"
            )
        return tuple(f"{line}: scores are too good; split by patient" for line in leak_lines)


def find_leaks(items: Sequence[LabelledImage], digests: Sequence[str]) -> Leaks:
    """Patients, volumes and pixels that are in two parts.

    `digests`: `pixel_digest` of each item. An image is not listed where its patient or volume is listed.
    """
    patients = _in_several_parts((item.patient, item.split, item.patient) for item in items if item.patient)
    units = ((item, item.group or item.volume) for item in items if item.patient is None)
    volumes = _in_several_parts((unit, item.split, str(unit)) for item, unit in units if unit is not None)
    pixels = _in_several_parts(
        (digest, item.split, item.key)
        for item, digest in zip(items, digests, strict=True)
        # Images of a listed patient or volume are not listed too: that would hide other leaks.
        if item.patient not in patients and (item.group or item.volume) not in volumes
    )
    return Leaks(
        _leak_sentence("patient", [f"{p} in {where}" for p, (_, where) in patients.items()]),
        _leak_sentence("volume", [f"{v} in {where}" for v, (_, where) in volumes.items()]),
        _leak_sentence(
            "identical image", [f"{' = '.join(keys)} in {where}" for keys, where in pixels.values()]
        ),
    )


def _in_several_parts(
    rows: Iterable[tuple[str | None, str | None, str]],
) -> dict[str, tuple[list[str], str]]:
    """Units in more than one part, with one name from each part and the parts. `rows`: (unit, part, name)."""
    names_by_part: dict[str, dict[str, str]] = defaultdict(dict)
    for unit, part, name in rows:
        names_by_part[str(unit)].setdefault(str(part), name)
    straddling = {}
    for unit in sorted(names_by_part):
        parts = [part for part in PARTS if part in names_by_part[unit]]
        if len(parts) > 1:
            names = list(dict.fromkeys(names_by_part[unit][part] for part in parts))
            straddling[unit] = (names, " and ".join(parts))
    return straddling


def _leak_sentence(unit_word: str, named: Sequence[str]) -> str:
    """How many units are in more than one part, with the first names; empty if none is."""
    if not named:
        return ""
    more = ", ..." if len(named) > _MAX_NAMED else ""
    verb = f"{unit_word} is" if len(named) == 1 else f"{unit_word}s are"
    return f"{len(named)} {verb} in more than one part ({', '.join(named[:_MAX_NAMED])}{more})"
