"""One adapter for each kind of dataset; each is a function that lists scans without reading them."""

from __future__ import annotations

from retfound_dist.schema import Phantom, Source
from shards.record import Scan


def open_source(source: Source, phantom: Phantom) -> list[Scan]:
    """Every scan of the configured source, in a fixed order."""
    if source.kind == "phantom":
        from shards.sources.generated import list_generated

        return list_generated(phantom, source.name)
    from shards.sources.folder import list_folder

    return list_folder(source.path, source.name)
