"""Reads and writes at URLs: local disks and object stores, retries, and errors that say what to do.

May import `io/stores` and `errors`. Every other room may import it.
"""
