"""What lies in a folder: one walk for all commands, image files, and a count of everything skipped.

May import `io` and `runtime`.
"""
