"""Files that others may have damaged or written at the same time: typed JSON, safe names, locks.

May import `io`, `runtime` and `config`.
"""
