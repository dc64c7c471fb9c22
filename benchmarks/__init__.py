"""Runnable comparisons: one command, one table, one file in `results/`."""
