"""One adapter for each kind of dataset; each is a function that lists scans without decoding them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.folder_walk import Links
from retfound_dist.schema import PackConfig, Phantom, Source
from retfound_dist.units import patients_of_units
from shards.people.choice import Choice, choose
from shards.people.hidden import prefixed
from shards.people.secret import Secret, find_secret
from shards.record import Listing, Scan

ADAPTERS = {
    "folder": "folder",
    "csv": "listed",
    "device": "device",
    "octid": "octid",
    "octdl": "octdl",
    "kermany": "kermany",
    "octa500": "octa500",
    "duke_dme": "duke_dme",
    "goals": "goals",
    "topcon": "topcon",
}
"""Kind -> module with `list_<kind>(path, name)`, imported when it is asked for."""


@dataclass(frozen=True)
class Opened:
    """One source and what it holds."""

    name: str
    kind: str
    scans: Sequence[Scan]
    notes: tuple[str, ...]
    choice: Choice
    """Whether its keys are names or digests."""


def open_sources(config: PackConfig, secret: Callable[[], Secret] = find_secret) -> list[Opened]:
    """Every configured source, listed; with several, each key begins with its source's name.

    Names that tell of people are digests from here on (shards.people); `secret` gives what keys them.
    """
    several = len(config.all_sources) > 1
    opened = []
    for source in config.all_sources:
        path = os.path.join(config.root, source.path) if config.root and source.path else source.path
        listing, choice = choose(source, open_source(replace(source, path=path), config.phantom), secret)
        scans = [prefixed(scan) for scan in listing.scans] if several else listing.scans
        opened.append(Opened(listing.scans[0].source, source.kind, scans, listing.notes, choice))
    _check_apart(opened)
    return opened


def open_source(source: Source, phantom: Phantom) -> Listing:
    """Every scan of one source, in a fixed order."""
    if source.kind == "phantom":
        from shards.sources.generated import list_generated

        return Listing(list_generated(phantom, source.name))
    module = import_module(f"shards.sources.{ADAPTERS[source.kind]}")
    adapter: Callable[[str, str, Links], Listing] = getattr(module, f"list_{source.kind}")
    return _with_patients(adapter(source.path, source.name, source.follow_links))


def _with_patients(listing: Listing) -> Listing:
    """Every slice with its volume's patient, where some slices name one and others do not."""
    if all(scan.patient is None for scan in listing.scans):
        return listing
    if not any(scan.patient is None and (scan.group or scan.volume) for scan in listing.scans):
        return listing
    owners = patients_of_units((scan.group or scan.volume, scan.patient) for scan in listing.scans)
    scans = [
        replace(scan, patient=owners.get(scan.group or scan.volume or "")) if scan.patient is None else scan
        for scan in listing.scans
    ]
    more = sum(a.patient is not b.patient for a, b in zip(scans, listing.scans, strict=True))
    note = f"the patient of {more:,} images is taken from other slices of their volume"
    return Listing(scans, (*listing.notes, note)) if more else listing


def _check_apart(opened: Sequence[Opened]) -> None:
    names = Counter(source.name for source in opened)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ConfigError(f"two sources are called {twice[0]}: give each of sources a name of its own")
    if len({scan.key for source in opened for scan in source.scans}) < sum(len(s.scans) for s in opened):
        keys = Counter(scan.key for source in opened for scan in source.scans)
        double = [key for key, count in keys.items() if count > 1]
        raise DataError(f"{len(double)} keys stand for two images ({double[0]}): rename the sources")
