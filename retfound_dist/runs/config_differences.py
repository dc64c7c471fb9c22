"""Compares the configs of several runs: in which settings each differs from most of them. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
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
    settings = {name: _settings(config, known_places, flat_sections) for name, config in configs.items()}
    keys = sorted(
        {
            key
            for values in settings.values()
            for key in values
            if not key.startswith(run_folder.CHANGEABLE_KEYS)
        }
    )
    cache: dict[Any, str] = {}
    texts = {name: json_texts({k: values.get(k) for k in keys}, cache) for name, values in settings.items()}
    majority = {}
    for key in keys:
        text, count = Counter(run_texts[key] for run_texts in texts.values()).most_common(1)[0]
        majority[key] = text if 2 * count > len(settings) else None
    return {
        name: {key: values.get(key) for key in keys if texts[name][key] != majority[key]}
        for name, values in settings.items()
    }


def _settings(
    config: Mapping[str, Any],
    known_places: dict[str, Mapping[str, Any]],
    flat_sections: dict[tuple[str, bytes], dict[str, Any]],
) -> dict[str, Any]:
    """A run's settings by key, with one URL for each shard set.

    `known_places`: for each shard set, the settings of the first run on it that say where the set is.
    `flat_sections`: the settings of each section (name and JSON) that was seen before.
    """
    values: dict[str, Any] = {}
    for name, section in config.items():
        if name not in NON_SETTINGS:
            # Most runs share most sections, so each is flattened once.
            key = name, to_json(section)
            if key not in flat_sections:
                flat_sections[key] = dict(flatten({name: section}))
            values |= flat_sections[key]
    if shard_set := config.get(SHARD_SET):
        place = {key: value for key, value in values.items() if key in run_folder.SHARD_SET_KEYS}
        values |= known_places.setdefault(json.dumps(shard_set, sort_keys=True), place)
    return values


def json_texts(settings: Mapping[str, Any], cache: dict[Any, str]) -> dict[str, str]:
    """Each value as JSON; `cache` keeps the texts of values that were seen before."""
    texts = {}
    for key, value in settings.items():
        try:
            # The type is a part of the key: 1, 1.0 and True are one key of a dict, but three texts.
            texts[key] = cache[type(value), value]
        except KeyError:
            texts[key] = cache[type(value), value] = json.dumps(value)
        except TypeError:  # lists and tables cannot be keys
            texts[key] = json.dumps(value)
    return texts
