"""May a file be written? What a command did not write itself, it does not overwrite.

A file of ours bears a mark among its first or last bytes: in a PNG's text, an HTML page's head, the arrays
or metadata of features. Exported weights bear none (others read them strictly): the card beside them does.
"""

from __future__ import annotations

from retfound_dist.errors import ConfigError
from retfound_dist.io import storage

LOOKED_AT = 64 << 10
"""Bytes at either end of a file among which the mark stands."""


def mark(command: str) -> str:
    """What a file of a command says of itself."""
    return f"made by retfound {command}"


def bears_mark(url: str, command: str) -> bool:
    """Whether a file was written by a command of ours."""
    return mark(command).encode() in storage.read_ends(url, LOOKED_AT)


def check_free(out: str, command: str, force: bool, option: str = "--out") -> None:
    """ConfigError where something stands at `out` that the command did not write; `force` lets a file go."""
    if storage.is_folder(out):
        raise ConfigError(f"{option} {out} is a folder, the name of a file is wanted: give {out}/NAME")
    if not force and storage.exists(out) and not bears_mark(out, command):
        raise not_ours(out, command, option)


def not_ours(out: str, command: str, option: str = "--out") -> ConfigError:
    """The refusal."""
    return ConfigError(
        f"{out} exists and was not written by `retfound {command}`: give another {option}, "
        "or replace it with --force"
    )
