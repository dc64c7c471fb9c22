"""Opens the configured sources. Each kind has an adapter: a function that lists scans without decoding."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

from retfound_dist.config.schema import PackConfig, Phantom, Source
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.files.folder_walk import Links
from retfound_dist.listing.split_units import patients_of_units
from shards.images.scan import Scan, SourceListing
from shards.people.name_policy import NamePolicy, choose_policy
from shards.people.pseudonyms import with_source_prefix
from shards.people.secret import Secret, find_secret

ADAPTERS = {
    "folder": "folders.folder",
    "csv": "folders.listed",
    "device": "devices.device",
    "octid": "datasets.octid",
    "octdl": "datasets.octdl",
    "kermany": "datasets.kermany",
    "octa500": "datasets.octa500",
    "duke_dme": "datasets.duke_dme",
    "goals": "datasets.goals",
    "topcon": "datasets.topcon",
}
"""Kind -> module with `list_<kind>(path, name, links)`. It is imported only if a source has this kind."""


@dataclass(frozen=True)
class OpenedSource:
    """One source and its scans."""

    name: str
    kind: str
    scans: Sequence[Scan]
    notes: tuple[str, ...]
    name_policy: NamePolicy
    """Whether its keys are names or digests."""


def open_sources(
    config: PackConfig,
    secret: Callable[[], Secret] = find_secret,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[OpenedSource]:
    """Lists every configured source. With several sources each key begins with its source's name.

    Names that may identify people become digests here (shards.people). `secret` returns their key.
    `on_progress`: called with the number of device files that are listed and of all, for each source.
    """
    several = len(config.all_sources) > 1
    opened = []
    for source in config.all_sources:
        path = os.path.join(config.root, source.path) if config.root and source.path else source.path
        listing, name_policy = choose_policy(
            source, open_source(replace(source, path=path), config.phantom, on_progress), secret
        )
        scans = [with_source_prefix(scan) for scan in listing.scans] if several else listing.scans
        opened.append(OpenedSource(listing.scans[0].source, source.kind, scans, listing.notes, name_policy))
    _check_unique(opened)
    return opened


def open_source(
    source: Source, phantom: Phantom, on_progress: Callable[[int, int], None] | None = None
) -> SourceListing:
    """Lists every scan of one source, in a fixed order. `on_progress`: see `open_sources`."""
    if source.kind == "phantom":
        # Imported here, because the phantom needs scipy and other sources do not.
        from shards.sources.phantom.generated import list_generated

        return SourceListing(list_generated(phantom, source.name))
    if source.kind == "device":
        from shards.sources.devices.device import list_device

        return _with_patients(
            list_device(source.path, source.name, source.follow_links, on_progress=on_progress)
        )
    module = import_module(f"shards.sources.{ADAPTERS[source.kind]}")
    adapter: Callable[[str, str, Links], SourceListing] = getattr(module, f"list_{source.kind}")
    return _with_patients(adapter(source.path, source.name, source.follow_links))


def _with_patients(listing: SourceListing) -> SourceListing:
    """Gives slices without a patient the patient of other slices of their volume."""
    if all(scan.patient is None for scan in listing.scans):
        return listing
    # A list may name the patient in only one row of a volume. All slices must go to the same part.
    if not any(scan.patient is None and (scan.group or scan.volume) for scan in listing.scans):
        return listing
    owners = patients_of_units((scan.group or scan.volume, scan.patient) for scan in listing.scans)
    scans = [
        replace(scan, patient=owners.get(scan.group or scan.volume or "")) if scan.patient is None else scan
        for scan in listing.scans
    ]
    changed = sum(a.patient is not b.patient for a, b in zip(scans, listing.scans, strict=True))
    note = f"the patient of {changed:,} images is taken from other slices of their volume"
    return SourceListing(scans, (*listing.notes, note)) if changed else listing


def _check_unique(opened: Sequence[OpenedSource]) -> None:
    names = Counter(source.name for source in opened)
    duplicates = [name for name, count in names.items() if count > 1]
    if duplicates:
        raise ConfigError(f"two sources are called {duplicates[0]}: give each source another name")
    # A set first, because counting millions of keys takes longer and is needed only for the message.
    if len({scan.key for source in opened for scan in source.scans}) < sum(len(s.scans) for s in opened):
        keys = Counter(scan.key for source in opened for scan in source.scans)
        duplicates = [key for key, count in keys.items() if count > 1]
        raise DataError(f"{len(duplicates)} keys are of two images ({duplicates[0]}): rename the sources")
