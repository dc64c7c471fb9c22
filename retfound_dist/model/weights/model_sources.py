"""Parses the names of models that are not files of ours: `timm:...` and `hf:...`.

timm:NAME                        timm's published weights of an architecture, with a tag or without
timm:NAME@FILE_OR_URL            the architecture, with weights from a file
hf:OWNER/REPO[@REVISION][/FILE]  a repository of the Hugging Face hub
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from retfound_dist.errors import WeightsError

TIMM, HUB = "timm:", "hf:"
_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<file>.+))?")


@dataclass(frozen=True)
class TimmSource:
    """`timm:NAME@FILE`."""

    name: str
    file: str
    """Path or URL of the weights; empty: those that timm publishes."""


@dataclass(frozen=True)
class HubSource:
    """`hf:OWNER/REPO@REVISION/FILE`."""

    repository: str
    revision: str
    """Branch, tag or commit; empty: the repository's main branch."""
    file: str
    """Path in the repository; empty: the only weights file."""


def parse(text: str) -> TimmSource | HubSource | None:
    """The parts of a model's name; None for a path, a URL, or any other text. WeightsError if it is cut."""
    if text.startswith(TIMM):
        name, mark, file = text.removeprefix(TIMM).partition("@")
        if not name or (mark and not file):
            raise WeightsError(f"{text!r} is not complete: give timm:NAME or timm:NAME@FILE")
        return TimmSource(name, file)
    if text.startswith(HUB):
        match = _HUB.fullmatch(text.removeprefix(HUB))
        if match is None:
            raise WeightsError(f"{text!r} is not complete: give hf:OWNER/REPO, hf:OWNER/REPO@REVISION/FILE")
        return HubSource(match["repository"], match["revision"] or "", match["file"] or "")
    return None
