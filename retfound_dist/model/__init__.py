"""The masked autoencoder, the classifier, and weights that go everywhere."""
