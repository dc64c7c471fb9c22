"""Formats numbers for people: sizes, durations, operations."""

from __future__ import annotations

from collections.abc import Sequence

BYTES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1))
OPERATIONS = (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6), ("FLOP", 1))


def size(count: float) -> str:
    """Bytes: 512 B, 9.1 GB, 1.32 TB (powers of ten)."""
    return _scaled(count, BYTES)


def duration(seconds: float, *, whole: bool = False) -> str:
    """Seconds: 8 ms, 45.3 s, 12 min, 3.5 h, 2.1 days. `whole`: no part of a second, as on a live display."""
    if whole and seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.3g} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def flops(count: float) -> str:
    """Operations: 124 GFLOP, 18 EFLOP."""
    return _scaled(count, OPERATIONS)


def _scaled(count: float, units: Sequence[tuple[str, float]]) -> str:
    """Three digits in the largest unit that gives at least 1 after rounding; whole numbers from 1,000 on."""
    for unit, scale in units[:-1]:
        value = count / scale
        if value >= 0.9995:
            return f"{value:,.3g} {unit}" if value < 999.5 else f"{value:,.0f} {unit}"
    return f"{count:,.0f} {units[-1][0]}"


def plural(count: int, word: str) -> str:
    """1 node, 3 nodes, 2 processes."""
    ending = "es" if word.endswith("s") else "s"
    return f"{count:,} {word}" + ("" if count == 1 else ending)
