"""The masked autoencoder, the classifier, and how they are compiled and run on CPUs.

May import `config`, `estimate` and `errors`; `model.weights` may import more.
"""
