"""Pretraining of retinal OCT foundation models on any number of GPUs."""
