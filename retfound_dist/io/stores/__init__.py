"""The kinds of stores behind `io/storage.py`: local disks, S3, and whatever else fsspec opens.

Other rooms use `io/storage.py`.

May import `errors` only.
"""
