"""A shard set and a step to a batch: exact at any world size, from any step on.

    from retfound_dist.stream import open_stream

    with open_stream("s3://bucket/oct", global_batch=256, workers=8) as stream:
        for batch in stream:  # endless; (m, 1, 224, 224) uint8, the same on every machine
            train_on(batch.images, batch.weight)
"""

from retfound_dist.stream.loader import MicroBatch, Stream, open_stream

__all__ = ["MicroBatch", "Stream", "open_stream"]
