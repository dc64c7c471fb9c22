"""Which scan goes into which part and shard: pure functions of the scans and two seeds.

May import `shards.people` and `shards.images`.
"""
