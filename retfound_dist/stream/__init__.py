"""Shards streamed into batches: a batch is a function of its step."""
