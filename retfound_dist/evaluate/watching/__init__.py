"""Probes the checkpoints of a run one after the other, and raises alarms.

May import `evaluate.report` and all that it may import.
"""
