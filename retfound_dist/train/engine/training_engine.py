"""What the trainer needs of an engine. An engine holds a model, its gradients and AdamW's state.

There are two: `single_rank_engine.py` for one rank, and `deepspeed_engine.py` for all else.
`engine_choice.py` makes the one that a run needs. Both write the same files.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

STATE_FOLDER = "state"
"""Folder of a training state inside a checkpoint; DeepSpeed calls it a tag."""
RUN_STATE = "run_state"
"""Key of what the run itself remembers, in a training state."""


class TrainingEngine(Protocol):
    """A step is `accumulation` passes: a forward pass, `backward` and `end_pass` each."""

    module: nn.Module
    zero_stage: int
    """DeepSpeed's ZeRO stage, as it runs; a checkpoint names it."""

    def __call__(self, images: Tensor, noise: Tensor) -> Tensor:
        """The model's forward pass."""
        ...

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add a pass's gradient, divided by the number of passes (DeepSpeed: and of ranks)."""
        ...

    def end_pass(self) -> Tensor | None:
        """Update the weights after the last pass of a step, and return the gradient's norm; else None.

        Where the norm is not finite, nothing is updated. Nothing here waits for the device.
        """
        ...

    def snapshot(self, folder: str, client_state: dict[str, Any]) -> dict[str, Any]:
        """Copy this rank's part of the training state to host memory, by path of the file in `folder`.

        Every rank must call it. `torch.save` of each value at its path makes what `load` reads.
        `client_state`: more keys for the state, with `RUN_STATE` among them.
        """
        ...

    def load(self, folder: str, name: str) -> dict[str, Any]:
        """Read this rank's part of the training state below `folder/name`; return its `RUN_STATE`.

        `name` is `STATE_FOLDER`, or `UNIVERSAL` for a converted state. CheckpointError, and nothing of it is
        run, where a file holds more than DeepSpeed writes (`state_files`).
        """
        ...
