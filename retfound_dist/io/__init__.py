"""Reading and writing at URLs: local disks and object stores, retries, and errors that say what to do.

May import `errors` only. Everything else in the house may import it.
"""
