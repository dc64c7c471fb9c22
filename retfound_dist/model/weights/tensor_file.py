"""Reads all tensors of a weights file. No file can run code (`safe_unpickle.py`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from retfound_dist.errors import RecordError, WeightsError
from retfound_dist.formats import url_kinds
from retfound_dist.io import storage
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.model.weights.safe_unpickle import first_line, read_pickle, unreadable_file
from retfound_dist.records import json_reader


@dataclass(frozen=True)
class TensorFile:
    """All that a weights file holds, before anybody looks for an encoder in it."""

    tree: Any
    """Tensors by name, in containers as the file has them."""
    config: dict[str, Any]
    """The config in a file that this project exported; empty for a file of another project."""
    sha256: str


def read_tensor_file(url: str) -> TensorFile:
    """The tensors of a weights file at a path or URL; WeightsError if there is none or it is damaged."""
    if not storage.exists(url) or storage.is_folder(url):
        raise WeightsError(url_kinds.wrong_kind_message(url, url_kinds.WEIGHTS))
    with _local_copy(url) as path:
        return read_local(path, url)


def read_local(path: str, url: str) -> TensorFile:
    """The tensors of a local file; `url` names it in messages."""
    # The sha256 identifies the weights. It is computed in a separate pass, so the file must not change before
    # the tensors have been read.
    with storage.storage_errors(url, "read"):
        before, sha256 = os.stat(path), storage.file_info(path).sha256
    tree, config = _read_tensors(path, url)
    if not os.path.samestat(before, os.stat(path)) or os.stat(path).st_mtime_ns != before.st_mtime_ns:
        raise WeightsError(f"{url} was written while it was read: start again when it is complete")
    return TensorFile(tree, config, sha256)


def _read_tensors(path: str, url: str) -> tuple[Any, dict[str, Any]]:
    # `url` may be the name of a timm model, which has no suffix. Then the suffix of the local file decides.
    if storage.name(url).endswith(".safetensors") or path.endswith(".safetensors"):
        try:
            with safetensors.safe_open(path, "pt") as file:
                text = (file.metadata() or {}).get("config", "")
            return safetensors.torch.load_file(path), _own_config(_parsed_config(text))
        except (SafetensorError, ValueError, OSError) as error:
            raise unreadable_file(url, first_line(error)) from error
    tree = read_pickle(path, url)
    return tree, _own_config(tree.get("config") if isinstance(tree, dict) else None)


def _parsed_config(text: str) -> Any:
    """The JSON in a header; None if it is not a JSON object, because other projects write any text there."""
    with suppress(RecordError):
        return json_reader.parse(text.encode(), dict[str, Any], "config", "")
    return None


def _own_config(config: Any) -> dict[str, Any]:
    """A file's `config` if this project wrote it, else an empty dict: other projects save a `config` too."""
    section = config.get("model") if isinstance(config, dict) else None
    # An export contains every setting, so these two are always there.
    is_own = isinstance(section, dict) and {"name", "image_size"} <= section.keys()
    return config if is_own else {}


@contextmanager
def _local_copy(url: str) -> Iterator[str]:
    """The path of a local file, or of a copy of a remote one that is removed when the block ends."""
    if storage.is_local(url):
        yield storage.local_path(url)
        return
    with new_temporary_folder() as folder:
        path = str(Path(folder) / storage.name(url))
        storage.get_file(url, path)
        yield path
