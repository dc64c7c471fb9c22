"""The checkpoints of a running run, probed one after the other, with alarms.

May import `evaluate.report` and all that it may import.
"""
