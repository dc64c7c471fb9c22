"""Volumes, eyes and patients in place of images: the parts of a set, and how their images are pooled.

May import `evaluate.data` and all that it may import.
"""
