"""Reads the batches of a shard set: the same at any world size, from any step on.

    from retfound_dist.stream import open_stream

    with open_stream("s3://bucket/oct", global_batch=256, workers=8) as stream:
        for batch in stream:  # endless; (m, 1, 224, 224) uint8, the same on every machine
            train_on(batch.images, batch.weight)

May import the base rooms only.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retfound_dist.stream.loader import MicroBatch, Stream, open_stream

__all__ = ["MicroBatch", "Stream", "open_stream"]


def __getattr__(name: str) -> Any:
    """Import the loader, and with it torch, at the first use: `retfound plan` needs neither."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from retfound_dist.stream import loader

    return getattr(loader, name)
