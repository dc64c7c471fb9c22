"""What the ranks of a run do together: collectives, reports of failures, stopping, the upload process.

May import `stream`, `formats` and what lies below them. No other room of `train`.
"""
