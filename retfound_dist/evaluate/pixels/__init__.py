"""Pixels of images: decoded and resized as fine-tuning needs them, and encoded as pictures for pages.

May import `evaluate.scores`.
"""
