"""Decides whether an output file may be written: a command overwrites only its own files.

Our files contain a mark in their first or last bytes: in the text of a PNG, in the head of an HTML page, in
the arrays or metadata of features. Exported weights contain none, because other programs read them strictly.
The model card beside them contains it.
"""

from __future__ import annotations

from retfound_dist.errors import ConfigError
from retfound_dist.io import storage

SEARCHED_BYTES = 64 << 10
"""Bytes at either end of a file that are searched for the mark."""


def mark(command: str) -> str:
    """The mark in the files that a command writes."""
    return f"made by retfound {command}"


def has_mark(url: str, command: str) -> bool:
    """Whether a file was written by this command."""
    return mark(command).encode() in storage.read_ends(url, SEARCHED_BYTES)


def check_may_write(out: str, command: str, force: bool, option: str = "--out") -> None:
    """ConfigError where `out` exists and this command did not write it. With `force` any file may be
    replaced."""
    if storage.is_folder(out):
        raise ConfigError(f"{option} {out} is a folder: give the name of a file, such as {out}/NAME")
    if not force and storage.exists(out) and not has_mark(out, command):
        raise foreign_output_error(out, command, option)


def foreign_output_error(out: str, command: str, option: str = "--out") -> ConfigError:
    """The error for an output that the command did not write."""
    return ConfigError(
        f"{out} exists and was not written by `retfound {command}`: give another {option}, "
        "or replace it with --force"
    )
