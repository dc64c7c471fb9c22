"""Numbers as a person says them."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes: 512 B, 9.1 GB, 1.32 TB (powers of ten)."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.3g} {unit}" if count < 1000 * scale else f"{count / scale:,.0f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Seconds: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.3g} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def flops(count: float) -> str:
    """Operations: 124 GFLOP, 1.8e+19."""
    for unit, scale in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if count >= scale:
            return f"{count / scale:,.3g} {unit}" if count < 1e22 else f"{count:.3g} FLOP"
    return f"{count:,.0f} FLOP"


def plural(count: int, word: str) -> str:
    """1 node, 3 nodes."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")
