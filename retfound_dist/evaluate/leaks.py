"""What a split must keep apart and does not: one patient, or the same pixels, in two parts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from retfound_dist.errors import DataError
from retfound_dist.evaluate.layouts import PARTS, Item
from retfound_dist.evaluate.pixels import Pixels

_NAMED = 5


def pixel_digest(pixels_HW: Pixels) -> str:
    """Equal for two images of the same size and the same grey values."""
    head = f"{pixels_HW.shape[0]}x{pixels_HW.shape[1]}:".encode()
    return hashlib.sha256(head + pixels_HW.tobytes()).hexdigest()


def find_leaks(items: Sequence[Item], digests: Sequence[str]) -> list[str]:
    """One sentence on patients and one on pixels that stand in two parts; empty where none does.

    `digests` are the items' pixels; an image of a patient who is named already is not named again.
    """
    patients = _straddling((item.patient, item.split, item.patient) for item in items if item.patient)
    leaky = set(patients)
    pixels = _straddling(
        (digest, item.split, item.key)
        for item, digest in zip(items, digests, strict=True)
        if item.patient not in leaky
    )
    found = []
    if patients:
        found.append(_sentence(len(patients), "patient", [f"{p} in {w}" for p, (_, w) in patients.items()]))
    if pixels:
        named = [f"{' = '.join(keys)} in {where}" for keys, where in pixels.values()]
        found.append(_sentence(len(pixels), "identical image", named))
    return found


def refuse_leaks(found: Sequence[str], where: str, allowed: bool) -> tuple[str, ...]:
    """The leaks as warnings where they are insisted on; else DataError."""
    if found and not allowed:
        raise DataError(
            f"{where}: {'; '.join(found)}: its scores would be too good; "
            "mend the split, or insist with --allow-leak (data.allow_leak=true)"
        )
    return tuple(f"{line}: scores are too good; split by patient" for line in found)


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


def _sentence(count: int, what: str, named: Sequence[str]) -> str:
    more = ", ..." if count > _NAMED else ""
    verb = f"{what} is" if count == 1 else f"{what}s are"
    return f"{count} {verb} in more than one part ({', '.join(named[:_NAMED])}{more})"
