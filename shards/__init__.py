"""Images and device volumes packed into tar shards."""
