"""Compares the configs of several runs: in which settings each differs from most of them. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from retfound_dist.config.loading import flatten
from retfound_dist.formats import run_folder
from retfound_dist.formats.content_identity import NON_SETTINGS, SHARD_SET


def config_differences(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By run: the settings whose value is not the one that more than half of all runs have.

    Where no value has a majority, every run shows its own. Settings that do not change the result are left
    out. One shard set at several URLs counts as one value.
    """
    known_places: dict[str, Mapping[str, Any]] = {}
    flat_sections: dict[tuple[str, bytes], dict[str, Any]] = {}
    differing = _differing_sections(list(configs.values()))
    settings = {
        name: _settings(config, differing, known_places, flat_sections) for name, config in configs.items()
    }
    keys = sorted(
        key for key in set().union(*settings.values()) if not key.startswith(run_folder.CHANGEABLE_KEYS)
    )
    differences: dict[str, dict[str, Any]] = {name: {} for name in settings}
    cache: dict[Any, str] = {}
    # By key, not by run: most keys have one value in all runs, and no difference.
    for key in keys:
        values = [run_values.get(key) for run_values in settings.values()]
        texts = json_texts(values, cache)
        text, count = Counter(texts).most_common(1)[0]
        if count == len(texts):
            continue
        for difference, value, run_text in zip(differences.values(), values, texts, strict=True):
            if run_text != text or 2 * count <= len(texts):
                difference[key] = value
    return differences


def _differing_sections(configs: Sequence[Mapping[str, Any]]) -> set[str]:
    """The sections that are not the same in all configs; only these can have a difference."""
    names = {name for config in configs for name in config}.difference(NON_SETTINGS)
    # As JSON: 1 and True are equal in Python, and two settings here.
    return {name for name in names if len({to_json(config.get(name)) for config in configs}) > 1}


def _settings(
    config: Mapping[str, Any],
    sections: Container[str],
    known_places: dict[str, Mapping[str, Any]],
    flat_sections: dict[tuple[str, bytes], dict[str, Any]],
) -> dict[str, Any]:
    """A run's settings in some sections by key, with one URL for each shard set.

    `known_places`: for each shard set, the settings of the first run on it that say where the set is.
    `flat_sections`: the settings of each section (name and JSON) that was seen before.
    """
    values: dict[str, Any] = {}
    for name, section in config.items():
        if name in sections:
            # Most runs share most sections, so each is flattened once.
            key = name, to_json(section)
            if key not in flat_sections:
                flat_sections[key] = dict(flatten({name: section}))
            values |= flat_sections[key]
    if shard_set := config.get(SHARD_SET):
        place = {key: value for key, value in values.items() if key in run_folder.SHARD_SET_KEYS}
        values |= known_places.setdefault(json.dumps(shard_set, sort_keys=True), place)
    return values


def json_texts(values: Sequence[Any], cache: dict[Any, str]) -> list[str]:
    """Each value as JSON; `cache` keeps the texts of values that were seen before."""
    # Runs with an equal section share its values, so there are few objects.
    objects = {id(value): value for value in values}
    texts = {number: _json_text(value, cache) for number, value in objects.items()}
    return [texts[id(value)] for value in values]


def _json_text(value: Any, cache: dict[Any, str]) -> str:
    try:
        # The type is a part of the key: 1, 1.0 and True are one key of a dict, but three texts.
        return cache[type(value), value]
    except KeyError:
        return cache.setdefault((type(value), value), json.dumps(value))
    except TypeError:  # lists and tables cannot be keys
        return json.dumps(value)
