"""Images and device volumes packed into tar shards: the commands.

May import every room of `shards` and the base rooms; never torch, `stream`, `model`, `train` or `evaluate`.
"""
