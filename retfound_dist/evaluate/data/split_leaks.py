"""What a split must keep apart and does not: one patient, one volume, or the same pixels, in two parts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.gray_pixels import Pixels
from retfound_dist.evaluate.data.set_layouts import PARTS, Item
from retfound_dist.listing.split_units import TOGETHER

_NAMED = 5


def pixel_digest(pixels_HW: Pixels) -> str:
    """Equal for two images of the same size and the same grey values."""
    head = f"{pixels_HW.shape[0]}x{pixels_HW.shape[1]}:".encode()
    return hashlib.sha256(head + pixels_HW.tobytes()).hexdigest()


@dataclass(frozen=True)
class Leaks:
    """What stands in two parts, a sentence each; empty where nothing does."""

    patients: str
    volumes: str
    """Of patients who are not known."""
    pixels: str

    def refuse(self, divided_by: str, where: str, allowed: bool, rule: str = TOGETHER) -> tuple[str, ...]:
        """The leaks as warnings; DataError where a split that was brought leaks and none insists.

        A split of ours, and so one read back from its file, may part identical images of patients that
        nobody knows: that is a warning. So are parted volumes where `data.unknown_patient=image` asks for it.
        """
        found = [line for line in (self.patients, self.volumes, self.pixels) if line]
        firm = [line for line in (self.patients, self.volumes if rule == TOGETHER else "") if line]
        given = [line for line in found if line != self.volumes or line in firm]
        blamed = {"given": given, "file": firm}.get(divided_by, [])
        if blamed and not allowed:
            raise DataError(
                f"{where}: {'; '.join(blamed)}: its scores would be too good; "
                "mend the split, or insist with --allow-leak (data.allow_leak=true)"
            )
        return tuple(f"{line}: scores are too good; split by patient" for line in found)


def find_leaks(items: Sequence[Item], digests: Sequence[str]) -> Leaks:
    """Patients and pixels that stand in two parts.

    `digests` are the items' pixels; an image of a patient who is named already is not named again.
    """
    patients = _straddling((item.patient, item.split, item.patient) for item in items if item.patient)
    leaky = set(patients)
    units = ((item, item.group or item.volume) for item in items if item.patient is None)
    volumes = _straddling((unit, item.split, str(unit)) for item, unit in units if unit is not None)
    pixels = _straddling(
        (digest, item.split, item.key)
        for item, digest in zip(items, digests, strict=True)
        if item.patient not in leaky and (item.group or item.volume) not in volumes
    )
    return Leaks(
        _sentence("patient", [f"{p} in {where}" for p, (_, where) in patients.items()]),
        _sentence("volume", [f"{v} in {where}" for v, (_, where) in volumes.items()]),
        _sentence("identical image", [f"{' = '.join(keys)} in {where}" for keys, where in pixels.values()]),
    )


def _straddling(
    rows: Iterable[tuple[str | None, str | None, str]],
) -> dict[str, tuple[list[str], str]]:
    """Of (unit, part, name): each unit in more than one part, with a name from each and the parts."""
    held: dict[str, dict[str, str]] = defaultdict(dict)
    for unit, part, name in rows:
        held[str(unit)].setdefault(str(part), name)
    found = {}
    for unit in sorted(held):
        parts = [part for part in PARTS if part in held[unit]]
        if len(parts) > 1:
            names = list(dict.fromkeys(held[unit][part] for part in parts))
            found[unit] = (names, " and ".join(parts))
    return found


def _sentence(what: str, named: Sequence[str]) -> str:
    if not named:
        return ""
    more = ", ..." if len(named) > _NAMED else ""
    verb = f"{what} is" if len(named) == 1 else f"{what}s are"
    return f"{len(named)} {verb} in more than one part ({', '.join(named[:_NAMED])}{more})"
