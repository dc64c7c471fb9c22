"""Fetches weights from a repository of the Hugging Face hub by its own client.

The client keeps its cache ($HF_HOME), sends the token of $HF_TOKEN, and asks $HF_ENDPOINT. A file that is in
the cache is used without network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from retfound_dist.errors import RecordError, WeightsError
from retfound_dist.model.weights.model_sources import HubSource
from retfound_dist.records import json_reader

WEIGHTS_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
CONFIG = "config.json"
_LISTED = 8


class HubConfig(TypedDict, total=False):
    """What is read of a repository's config.json; timm and transformers write different keys."""

    architecture: str
    """timm: the model's name."""
    pretrained_cfg: dict[str, Any]
    """timm: input size, mean and spread of the images, interpolation."""
    model_type: str
    """transformers: the family."""


@dataclass(frozen=True)
class HubFile:
    """A weights file of a repository, in the local cache."""

    path: str
    name: str
    config: HubConfig


@cache
def fetch(source: HubSource) -> HubFile:
    """The weights that a name stands for; WeightsError with what to do if they cannot be had.

    Fetched once in a process: without network the client tries for most of a minute each time.
    """
    names = [source.file] if source.file else _list_files(source)
    config_path = _fetch_optional(source, CONFIG)
    config: HubConfig = {}
    if config_path:
        config = _read_config(config_path, source)
    name = source.file or _choose(names, source, bool(config.get("architecture")))
    return HubFile(_fetch(source, name), name, config)


def _read_config(path: str, source: HubSource) -> HubConfig:
    try:
        return json_reader.parse(
            Path(path).read_bytes(),
            HubConfig,
            f"{CONFIG} of {source.repository}",
            "name a file of the repository",
        )
    except RecordError as error:
        raise WeightsError(str(error)) from error


def _choose(names: list[str], source: HubSource, is_timm: bool) -> str:
    """The only weights file. timm's repositories hold the same weights in two formats."""
    weights = [name for name in names if name.endswith(WEIGHTS_ENDINGS)]
    if is_timm and "model.safetensors" in weights:
        return "model.safetensors"
    if len(weights) == 1:
        return weights[0]
    if not weights:
        raise WeightsError(f"{source.repository} on the hub holds no weights file: {_list(names)}")
    raise WeightsError(
        f"{source.repository} on the hub holds {len(weights)} weights files: name one, such as "
        f"hf:{source.repository}/{weights[0]}; they are {_list(weights)}"
    )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _list_files(source: HubSource) -> list[str]:
    from huggingface_hub import HfApi

    try:
        return sorted(HfApi().list_repo_files(source.repository, revision=source.revision or None))
    except Exception as error:  # the client's errors share no base class
        cached = _cached_files(source)
        if cached:
            return cached
        raise _explained(error, source, "") from error


def _cached_files(source: HubSource) -> list[str]:
    """Names of the repository's files in the local cache; none if it is not there."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(source.repository, revision=source.revision or None, local_files_only=True)
        )
    except Exception:  # not in the cache: the caller reports the network's error
        return []
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _fetch(source: HubSource, name: str) -> str:
    """The local path of a file of the repository, from the cache or the network."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    # The cache first: the client asks the network for a newer file, and waits if it cannot be reached.
    cached = try_to_load_from_cache(source.repository, name, revision=source.revision or None)
    # Not `is not None`: the cache returns another object for a file that is known not to exist.
    if isinstance(cached, str):
        return cached
    try:
        return str(hf_hub_download(source.repository, name, revision=source.revision or None))
    except Exception as error:  # the client's errors share no base class
        raise _explained(error, source, name) from error


def _fetch_optional(source: HubSource, name: str) -> str:
    """A file's path in the cache; empty if the repository has no such file."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    # The cache remembers also that a repository has no such file.
    if try_to_load_from_cache(source.repository, name, revision=source.revision or None) is _CACHED_NO_EXIST:
        return ""
    try:
        return _fetch(source, name)
    except WeightsError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return ""
        raise


def _explained(error: Exception, source: HubSource, name: str) -> WeightsError:
    """What went wrong at the hub, and what to do; never the token."""
    from huggingface_hub import constants, errors

    where = f"{source.repository} on the hub"
    if isinstance(error, errors.GatedRepoError):
        return WeightsError(
            f"{where} is gated: accept its terms on its page, then set HF_TOKEN to a token of that account"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(f"{where} has no revision {source.revision}: check the name after @")
    if isinstance(error, errors.LocalEntryNotFoundError):
        # Also raised where there is no network: the client then looks into its cache.
        return _unreachable(where, constants.HF_HUB_CACHE, error)
    if isinstance(error, errors.EntryNotFoundError):
        return WeightsError(f"{where} has no file {name}: check the name")
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsError(
            f"there is no {source.repository} on the hub, or it is private: check the name, or set HF_TOKEN"
        )
    return _unreachable(where, constants.HF_HUB_CACHE, error)


def _unreachable(where: str, cache: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{where} is not in the cache {cache} and cannot be fetched ({type(error).__name__}): fetch it on a "
        "machine with network and copy the cache, or give a file"
    )
