"""Finds the encoders in a weights file of another project: the container and the prefix of their names.

Training code nests its weights (`model`, `state_dict`, `teacher`, ...). Wrappers add prefixes to the names
(`module.`, `_orig_mod.`, `backbone.`, ...), in any order and depth. If a file has several complete encoders,
the teacher or moving average is preferred, then a plain one, then the student.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

State = dict[str, Tensor]
WRAPPERS = {
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module",
}  # fmt: skip
"""Parts of names that DDP, torch.compile, FSDP, activation checkpointing and DeepSpeed add, anywhere."""
# Words in the name of a container. DINO, iBOT and I-JEPA evaluate their teacher or target network. MoCo
# evaluates the encoder, not the momentum encoder.
AVERAGED = {"teacher", "ema", "target", "averaged"}
TRAINED_ONLY = {"student", "momentum", "optimizer"}
DECODER_PREFIXES = ("decoder", "mask_token")
# Two names: an encoder that lacks one of them is still found, and the error can name the missing tensor.
_FIRST_NAMES = re.compile(r"^(|.*?\.)(?:patch_embed\.proj\.weight|blocks\.0\.(?:\d+\.)?norm1\.weight)$")
_CHUNKED_BLOCK = re.compile(r"^blocks\.\d+\.(\d+)\.")
"""DINOv2's trainer stores blocks in chunks: blocks.CHUNK.BLOCK. BLOCK counts through all chunks."""
MAX_DEPTH = 5
_PREFIXES = ("", "backbone.", "encoder.", "model.", "trunk.", "net.")
"""What training code puts before the names of any network."""


@dataclass(frozen=True)
class Candidate:
    """Tensors that may be an encoder. Their names have no prefix."""

    part: str
    """Container and prefix, such as `model.teacher.backbone`; empty: the top level of the file."""
    state: State
    other_names: tuple[str, ...]
    """Names of the other tensors in the same container."""

    @property
    def preference(self) -> int:
        """The lowest is preferred."""
        # Whole words: `target` means a moving average, `targets_head` does not.
        words = {word for text in self.part.split(".") for word in text.lower().split("_")}
        return 0 if words & AVERAGED else 2 if words & TRAINED_ONLY else 1


def find_candidates(tree: Any) -> list[Candidate]:
    """Every group of tensors in a file that is named like a ViT, in the file's order."""
    matches = []
    for path, tensors in _containers(tree, ()):
        names = {_strip_wrappers(name): value for name, value in tensors.items()}
        # A dict keeps the order, a set does not: of equal candidates the first in the file is chosen.
        prefixes = dict.fromkeys(match[1] for name in names if (match := _FIRST_NAMES.match(name)))
        matches += [_make_candidate(path, names, prefix) for prefix in prefixes]
    return matches


def find_states(tree: Any, names_wanted: Iterable[str]) -> list[Candidate]:
    """Every group of tensors that may be a network with these names, the most likely first.

    Unlike `find_candidates` for a network of any family.
    """
    wanted_names, states = set(names_wanted), []
    for path, tensors in _containers(tree, ()):
        names = {_strip_wrappers(name): value for name, value in tensors.items()}
        for prefix in _PREFIXES:
            if any(name.startswith(prefix) for name in names):
                states.append(_make_candidate(path, names, prefix))
    # Names in common come first: an optimizer's state is a group of tensors too.
    return sorted(states, key=lambda state: (-len(wanted_names & state.state.keys()), state.preference))


def all_tensors(tree: Any) -> State:
    """All tensors of a file by their full names, for error messages."""
    containers = _containers(tree, ())
    return {".".join((*path, name)): v for path, tensors in containers for name, v in tensors.items()}


def _containers(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], State]]:
    """Mappings that contain tensors, each with its path in the file."""
    if not isinstance(tree, Mapping) or len(path) > MAX_DEPTH:
        return
    tensors = {str(name): value.detach() for name, value in tree.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _containers(value, (*path, str(name)))


def _strip_wrappers(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in WRAPPERS)


def _make_candidate(path: tuple[str, ...], names: State, prefix: str) -> Candidate:
    """The tensors under a prefix, without it; `path`: the container, `names`: all its tensors by name."""
    encoder = {n.removeprefix(prefix): v for n, v in names.items() if n.startswith(prefix)}
    state = {_CHUNKED_BLOCK.sub(r"blocks.\1.", name): value for name, value in encoder.items()}
    parent_prefix = prefix.removesuffix("encoder.")
    # Where encoder and decoder are two modules, the decoder is one level above the encoder's tensors.
    if parent_prefix != prefix:
        siblings = {n.removeprefix(parent_prefix): v for n, v in names.items() if n.startswith(parent_prefix)}
        state |= {n: v for n, v in siblings.items() if n.startswith(DECODER_PREFIXES)}
    other_names = tuple(
        n for n in names if not n.startswith(prefix) and n.removeprefix(parent_prefix) not in state
    )
    return Candidate(".".join([*path, *filter(None, prefix.split("."))]), state, other_names)
