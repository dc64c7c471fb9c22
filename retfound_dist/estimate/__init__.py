"""Closed formulas: parameters, memory, time, the time that a save takes. No torch, no device.

May import `config` and `errors`.
"""
