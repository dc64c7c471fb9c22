"""Reads and writes at URLs: local disks and object stores, retries, and errors that say what to do.

May import `errors` only. Every other room may import it.
"""
