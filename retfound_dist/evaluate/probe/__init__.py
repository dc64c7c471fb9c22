"""What pretrained weights can do before any fine-tuning: features, a linear probe, reconstructions.

May import `evaluate.finetune` and all that it may import.
"""
