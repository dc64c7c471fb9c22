"""Whose starting weights are, and under which licence: from their names and from the runs that used them."""

from __future__ import annotations

import re

from retfound_dist.errors import RetfoundError
from retfound_dist.formats.checkpoint_folder import is_checkpoint, read_commit

NON_COMMERCIAL = "CC BY-NC 4.0"
_PUBLISHED_WEIGHTS = (
    (re.compile(r"retfound|oct_weights|cfp_weights", re.I), "RETFound's", NON_COMMERCIAL),
    (re.compile(r"mae[_-]?(pretrain|finetuned|visualize)|mae_vit", re.I), "MAE's", NON_COMMERCIAL),
)
"""Published weights: the pattern of their files' names, whose they are, and their licence (see NOTICE)."""


def original_weights(init: str, max_length: int = 8) -> str:
    """The first weights of a chain of warm starts: follows each checkpoint to the weights it began from."""
    # Limited, because configs may name each other in a circle.
    for _ in range(max_length):
        try:
            if not init or init == "none" or not is_checkpoint(init):
                break
            init = read_commit(init).config["model"]["init"]
        except (RetfoundError, KeyError):
            break
    return init


def licence_of(init: str) -> tuple[str, str]:
    """(owner, licence) of starting weights by their name; both are empty where they are not known."""
    if init == "none":
        return "nobody's", "none"
    for pattern, whose, licence in _PUBLISHED_WEIGHTS:
        if pattern.search(init):
            return whose, licence
    return "", ""
