"""What the system writes and reads again: shard sets, checkpoints, run folders, logs, scores.

May import `io`, `runtime`, `config`, `records` and `files`. Imports no torch.
"""
