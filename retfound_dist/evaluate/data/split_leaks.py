"""Finds the leaks of a split: one patient, one volume, or the same pixels, in two parts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.gray_pixels import Pixels
from retfound_dist.evaluate.data.set_layouts import PARTS, LabelledImage
from retfound_dist.listing.split_units import TOGETHER

_NAMED = 5


def pixel_digest(pixels_HW: Pixels) -> str:
    """Equal for two images of the same size and the same grey values."""
    # The shape counts: the same bytes can be 2 x 8 or 4 x 4 pixels.
    head = f"{pixels_HW.shape[0]}x{pixels_HW.shape[1]}:".encode()
    return hashlib.sha256(head + pixels_HW.tobytes()).hexdigest()


@dataclass(frozen=True)
class Leaks:
    """One sentence for each kind of leak; empty where there is none."""

    patients: str
    volumes: str
    """Of patients who are not known."""
    pixels: str

    def check(self, divided_by: str, where: str, allowed: bool, rule: str = TOGETHER) -> tuple[str, ...]:
        """The leaks as warnings. Raises DataError where a given split leaks and leaks are not `allowed`.

        Our own split, also one read back from its file, may separate identical images of unknown patients:
        that is a warning. So are separated volumes where `data.unknown_patient=image` asks for it.
        """
        leak_lines = [line for line in (self.patients, self.volumes, self.pixels) if line]
        refused_always = [line for line in (self.patients, self.volumes if rule == TOGETHER else "") if line]
        refused_if_given = [line for line in leak_lines if line != self.volumes or line in refused_always]
        blamed = {"given": refused_if_given, "file": refused_always}.get(divided_by, [])
        if blamed and not allowed:
            raise DataError(
                f"{where}: {'; '.join(blamed)}: its scores would be too good; "
                "mend the split, or insist with --allow-leak (data.allow_leak=true)"
            )
        return tuple(f"{line}: scores are too good; split by patient" for line in leak_lines)


def find_leaks(items: Sequence[LabelledImage], digests: Sequence[str]) -> Leaks:
    """Patients, volumes and pixels that are in two parts.

    `digests` are the items' pixels; an image of a patient who is named already is not named again.
    """
    patients = _in_several_parts((item.patient, item.split, item.patient) for item in items if item.patient)
    leaky = set(patients)
    units = ((item, item.group or item.volume) for item in items if item.patient is None)
    volumes = _in_several_parts((unit, item.split, str(unit)) for item, unit in units if unit is not None)
    pixels = _in_several_parts(
        (digest, item.split, item.key)
        for item, digest in zip(items, digests, strict=True)
        # A patient or volume that is named already explains its images: naming each would hide other leaks.
        if item.patient not in leaky and (item.group or item.volume) not in volumes
    )
    return Leaks(
        _sentence("patient", [f"{p} in {where}" for p, (_, where) in patients.items()]),
        _sentence("volume", [f"{v} in {where}" for v, (_, where) in volumes.items()]),
        _sentence("identical image", [f"{' = '.join(keys)} in {where}" for keys, where in pixels.values()]),
    )


def _in_several_parts(
    rows: Iterable[tuple[str | None, str | None, str]],
) -> dict[str, tuple[list[str], str]]:
    """Of (unit, part, name): each unit in more than one part, with a name from each and the parts."""
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


def _sentence(unit_word: str, named: Sequence[str]) -> str:
    if not named:
        return ""
    more = ", ..." if len(named) > _NAMED else ""
    verb = f"{unit_word} is" if len(named) == 1 else f"{unit_word}s are"
    return f"{len(named)} {verb} in more than one part ({', '.join(named[:_NAMED])}{more})"
