"""Scans for tests of planning, which read no image."""

from __future__ import annotations

import hashlib

from shards.images.scan import Scan

SIX_TWO_TWO = (0.6, 0.2, 0.2)


def no_read() -> bytes:
    raise AssertionError("planning reads no image")


def scan(key: str, label: str | None = "A", patient: str | None = None, split: str | None = None) -> Scan:
    return Scan(key=key, origin=key, source="s", read=no_read, label=label, patient=patient, split=split)


def corpus(sizes: dict[str, list[int]]) -> list[Scan]:
    """For each label, patients with so many images each."""
    return [
        scan(f"{label}{p}-{i}", label, f"{label}{p}")
        for label, patients in sizes.items()
        for p, images in enumerate(patients)
        for i in range(images)
    ]


def digest(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
