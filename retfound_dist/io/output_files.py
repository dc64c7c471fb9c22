"""Decides whether an output file may be written: a command overwrites only its own files.

A file of ours holds a mark among its first or last bytes: in a PNG's text, in the head of an HTML page, in
the arrays or metadata of features. Exported weights hold none, because others read them strictly. The card
beside them holds it.
"""

from __future__ import annotations

from retfound_dist.errors import ConfigError
from retfound_dist.io import storage

LOOKED_AT = 64 << 10
"""Bytes at either end of a file that are searched for the mark."""


def mark(command: str) -> str:
    """The mark in files that a command writes."""
    return f"made by retfound {command}"


def bears_mark(url: str, command: str) -> bool:
    """Whether a file was written by a command of ours."""
    return mark(command).encode() in storage.read_ends(url, LOOKED_AT)


def check_free(out: str, command: str, force: bool, option: str = "--out") -> None:
    """ConfigError where `out` exists and is not the command's own. `force` allows to replace a file."""
    if storage.is_folder(out):
        raise ConfigError(f"{option} {out} is a folder, the name of a file is wanted: give {out}/NAME")
    if not force and storage.exists(out) and not bears_mark(out, command):
        raise foreign_output_error(out, command, option)


def foreign_output_error(out: str, command: str, option: str = "--out") -> ConfigError:
    """The error for an output that the command did not write."""
    return ConfigError(
        f"{out} exists and was not written by `retfound {command}`: give another {option}, "
        "or replace it with --force"
    )
