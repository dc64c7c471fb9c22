"""Plans which scan goes into which part and in which order: pure functions of the scans and two seeds.

May import `shards.people` and `shards.images`.
"""
