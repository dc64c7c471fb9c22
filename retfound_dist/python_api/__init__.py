"""What `import retfound_dist` offers in Python: encoders, classifiers, images, features, probabilities.

May import all blocks but `train`, `plan`, `runs`, `shards` and `cli`.
"""
