"""Finds the encoders in a file made by others: in which container, behind which prefix.

Training code nests its weights (`model`, `state_dict`, `teacher`, ...). Wrappers lengthen their names
(`module.`, `_orig_mod.`, `backbone.`, ...), in any order and depth. Of several whole encoders the teacher or
moving average is preferred, then a plain one, then the student.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

State = dict[str, Tensor]
WRAPPERS = {
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module",
}  # fmt: skip
"""What DDP, torch.compile, FSDP, recomputing and DeepSpeed put into names, anywhere."""
# Words of a place. DINO, iBOT and I-JEPA evaluate their teacher or target network. MoCo evaluates the
# encoder beside its momentum encoder.
AVERAGED = {"teacher", "ema", "target", "averaged"}
TRAINED_ONLY = {"student", "momentum", "optimizer"}
DECODER = ("decoder", "mask_token")
# Two names, so that an encoder with one of them missing is still found, and what it lacks can be said.
_ANCHOR = re.compile(r"^(|.*?\.)(?:patch_embed\.proj\.weight|blocks\.0\.(?:\d+\.)?norm1\.weight)$")
_CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")
"""DINOv2's trainer holds its blocks in chunks: blocks.CHUNK.BLOCK, the block counted through."""
_DEEPEST = 5


@dataclass(frozen=True)
class Candidate:
    """Tensors that may be an encoder, by names without prefix."""

    part: str
    """Container and prefix, such as `model.teacher.backbone`; empty: the file's own level."""
    state: State
    left: tuple[str, ...]
    """Names beside it in the same container."""

    @property
    def preference(self) -> int:
        """The smaller the better."""
        # Whole words: `target` is a moving average, `targets_head` says nothing.
        words = {word for text in self.part.split(".") for word in text.lower().split("_")}
        return 0 if words & AVERAGED else 2 if words & TRAINED_ONLY else 1


def candidates(tree: Any) -> list[Candidate]:
    """Every place in a file where the names of a ViT begin, in the file's order."""
    matches = []
    for path, tensors in _containers(tree, ()):
        names = {_unwrapped(name): value for name, value in tensors.items()}
        # A dict and no set, for the order: of equal candidates the first in the file is taken.
        prefixes = dict.fromkeys(match[1] for name in names if (match := _ANCHOR.match(name)))
        matches += [_candidate(path, names, prefix) for prefix in prefixes]
    return matches


def tensors_of(tree: Any) -> State:
    """All tensors of a file by their full names, for messages."""
    containers = _containers(tree, ())
    return {".".join((*path, name)): v for path, tensors in containers for name, v in tensors.items()}


def _containers(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], State]]:
    """Mappings that hold tensors, with where they are."""
    if not isinstance(tree, Mapping) or len(path) > _DEEPEST:
        return
    tensors = {str(name): value.detach() for name, value in tree.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _containers(value, (*path, str(name)))


def _unwrapped(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in WRAPPERS)


def _candidate(path: tuple[str, ...], names: State, prefix: str) -> Candidate:
    within = {n.removeprefix(prefix): v for n, v in names.items() if n.startswith(prefix)}
    state = {_CHUNKED.sub(r"blocks.\1.", name): value for name, value in within.items()}
    above = prefix.removesuffix("encoder.")
    # Where encoder and decoder are two modules, the decoder is one level above the encoder's tensors.
    if above != prefix:
        beside = {n.removeprefix(above): v for n, v in names.items() if n.startswith(above)}
        state |= {n: v for n, v in beside.items() if n.startswith(DECODER)}
    left = tuple(n for n in names if not n.startswith(prefix) and n.removeprefix(above) not in state)
    return Candidate(".".join([*path, *filter(None, prefix.split("."))]), state, left)
