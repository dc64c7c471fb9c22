"""From files to labelled images: lists, tables, folders as classes, patients and volumes.

May import `formats` and all that `formats` may import.
"""
