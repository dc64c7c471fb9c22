"""A checkpoint turned into evidence: fine-tuned, probed, scored, compared, reported.

May import `model`, `stream` and the base rooms; never `train`, `plan`, `runs` or `shards`.
"""
