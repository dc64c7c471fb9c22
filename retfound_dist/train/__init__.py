"""The pretraining run: engine, optimiser, checkpoints, telemetry, loop."""
