"""Cooperation of a run's ranks: collectives, reports of failures, requests to stop, the upload process.

May import `stream`, `formats` and the rooms below them. No other room of `train`.
"""
