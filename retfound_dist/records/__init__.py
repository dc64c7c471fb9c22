"""Files that may be damaged, or that others write at the same time: typed JSON, safe names, locks.

May import `io`, `runtime` and `config`.
"""
