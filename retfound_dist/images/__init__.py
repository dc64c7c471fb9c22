"""From an image file to 8-bit pixels: the one decoder of every command, and digests of images.

May import `formats` and all that `formats` may import. Imports no torch.
"""
