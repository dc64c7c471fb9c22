"""Loads a config from a TOML file and command-line overrides, with the origin of each value.

config, origins = load(PretrainConfig, "configs/demo/pretrain.toml", ["train.steps=20"])
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from retfound_dist.config import schema
from retfound_dist.config.reference import named_table
from retfound_dist.errors import ConfigError, StorageError
from retfound_dist.io import storage

T = TypeVar("T")
Tree = dict[str, Any]


def load(config_class: type[T], path: str, overrides: Sequence[str] = ()) -> tuple[T, dict[str, str]]:
    """Read a config file and apply `key=value` overrides.

    Returns the config and, for every dotted key, its origin: the file, `command line` or `default`.
    Raises ConfigError with every fault in one line.
    """
    tree = read_toml(path)
    override_values = dict(parse_override(config_class, text) for text in overrides)
    for key, value in override_values.items():
        _set_value(tree, key, value)
    _drop_overridden_length(tree, override_values)
    origins = {key: path for key, _ in flatten(tree)}
    origins |= {
        key: "command line" for key in origins if any(_is_below(key, name) for name in override_values)
    }
    config = build(config_class, tree, where=path)
    return config, {key: origins.get(key, "default") for key, _ in flatten(to_dict(config))}


def load_any(path: str, overrides: Sequence[str] = ()) -> tuple[Any, dict[str, str]]:
    """`load` for the command that the file is for, detected from its sections."""
    tree = read_toml(path)
    names = [text.partition("=")[0].split(".")[0] for text in overrides]
    return load(config_class_of({**tree, **dict.fromkeys(names)}, path), path, overrides)


def config_class_of(tree: Mapping[str, Any], path: str) -> Any:
    """The config class that a file's sections belong to. Raises ConfigError where there is none."""
    # The order decides: a pretraining config has `run` and `checkpoint` too, and evaluate's and compare's
    # have `out`. The section that only one command has comes first.
    kinds = {
        "train": schema.PretrainConfig,
        "sets": schema.SuiteConfig,
        "weights": schema.CompareConfig,
        "checkpoint": schema.EvaluateConfig,
        "poll_seconds": schema.WatchConfig,
        "run": schema.WatchConfig,
        "out": schema.PackConfig,
    }
    kind = next((kind for key, kind in kinds.items() if key in tree), None)
    if kind is None:
        raise ConfigError(f"{path} is a config of no command: its sections are {', '.join(tree) or 'none'}")
    return kind


PRESETS = Path(__file__).resolve().parent.parent / "presets"
"""The installed copy of `configs/`."""


def read_toml(path: str) -> Tree:
    """The content of a TOML file. `configs/...` falls back to the installed presets."""
    preset = PRESETS / path.removeprefix("configs/")
    if path.startswith("configs/") and preset.is_file() and not Path(path).exists():
        path = str(preset)
    try:
        return tomllib.loads(storage.read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    except StorageError as error:
        raise ConfigError(f"config file {path}: {error}") from error


def parse_override(kind: type, text: str) -> tuple[str, Any]:
    """Split `a.b=value`; the value is TOML, or plain text where the key holds text."""
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"override {text!r} is not key=value: write it like train.steps=100")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return key, raw
    # `run.url=5` is a folder named 5, although 5 is a number in TOML.
    if not isinstance(value, str) and _field_type(kind, key.split(".")) is str:
        return key, raw
    return key, value


def build(kind: type[T], tree: Mapping[str, Any], where: str) -> T:
    """Check a tree of values against a config class; all faults are listed at once."""
    try:
        # By way of JSON: in strict mode pydantic takes a list for a tuple there, and refuses it in Python
        # values. TOML's dates have no form in JSON; as text they are refused by name like any wrong value.
        return TypeAdapter(kind).validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        faults = [_describe_fault(kind, fault) for fault in _merge_alternatives(error.errors())]
        raise ConfigError(f"{where}: " + "; ".join(faults)) from error


def to_dict(config: Any) -> Tree:
    """A config as plain nested values, ready for JSON."""
    tree: Tree = json.loads(json.dumps(dataclasses.asdict(config)))
    return tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def key_names(kind: type, prefix: str = "") -> list[str]:
    """Every dotted key of a config class."""
    names: list[str] = []
    for name, annotation in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(annotation):
            names += key_names(typing.cast(type, annotation), f"{prefix}{name}.")
        elif table := named_table(annotation):
            names += key_names(table, f"{prefix}{name}.NAME.")
        else:
            names.append(prefix + name)
    return names


def defaults(kind: type) -> Tree:
    """Dotted key -> default of every key of a config class that has one, as JSON holds it."""
    values: Tree = {}
    hints = typing.get_type_hints(kind)
    for section_field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[section_field.name]):
            below = defaults(typing.cast(type, hints[section_field.name]))
            values |= {f"{section_field.name}.{key}": value for key, value in below.items()}
        elif section_field.default is not dataclasses.MISSING:
            values[section_field.name] = section_field.default
        elif section_field.default_factory is not dataclasses.MISSING:
            values[section_field.name] = section_field.default_factory()
    tree: Tree = json.loads(json.dumps(values))
    return tree


def with_defaults(kind: type, tree: Mapping[str, Any]) -> Tree:
    """Dotted key -> value of a config that was written earlier. Missing keys get today's defaults."""
    flat = dict(flatten(tree))
    tables = {key[:end] for key in flat for end, letter in enumerate(key) if letter == "."}
    return {key: value for key, value in defaults(kind).items() if key not in tables} | flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, old value, new value) of every leaf that differs."""
    a, b = dict(flatten(old)), dict(flatten(new))
    return [(key, a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def _field_type(kind: type, path: Sequence[str]) -> Any:
    """The type of the field at this path of key names; None where there is no such field."""
    hints = typing.get_type_hints(kind)
    if path[0] not in hints:
        return None
    annotation = hints[path[0]]
    if len(path) > 1:
        if dataclasses.is_dataclass(annotation):
            return _field_type(typing.cast(type, annotation), path[1:])
        if (table := named_table(annotation)) and len(path) > 2:
            return _field_type(table, path[2:])
        return typing.get_args(annotation)[1] if typing.get_origin(annotation) is dict else None
    return str if typing.get_origin(annotation) is typing.Literal and _all_text(annotation) else annotation


def _all_text(literal: types.GenericAlias | Any) -> bool:
    return all(isinstance(choice, str) for choice in typing.get_args(literal))


def _set_value(tree: Tree, key: str, value: Any) -> None:
    """Set a dotted key in a tree of sections; ConfigError where one of its parents is a value."""
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {key}: {parent} is a value, not a section")
    tree[last] = value


def _is_below(key: str, name: str) -> bool:
    return key == name or key.startswith(name + ".")


def _drop_overridden_length(tree: Tree, override_values: Mapping[str, Any]) -> None:
    """Drop the file's `train.epochs` where `train.steps` is on the command line, and the other way round."""
    for key, other in (("train.steps", "train.epochs"), ("train.epochs", "train.steps")):
        if key in override_values and other not in override_values:
            tree["train"].pop(other.removeprefix("train."), None)


def _merge_alternatives(faults: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One fault for each key. A value of several types (a number or `auto`) has one fault for each type."""
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for fault in faults:
        place = tuple(p for p in fault["loc"] if not re.match(r"constrained-|literal\[", str(p)))
        if place in merged and place != tuple(fault["loc"]):
            merged[place]["msg"] += f", or {fault['msg']}"
        else:
            merged[place if place not in merged else fault["loc"]] = {**fault, "loc": place}
    return list(merged.values())


def _describe_fault(kind: type, fault: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a sentence that names the key and its value."""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "unexpected_keyword_argument":
        # A command that has the section gets here for a key inside it, which is spelled wrongly.
        if key == "task":
            return f"unknown key {key}: only evaluate and compare have it, for other tasks than classes"
        # Without a cutoff: the nearest key is named however far it is, for it shows how keys look.
        near = difflib.get_close_matches(key, key_names(kind) + _sections(kind), n=1, cutoff=0)
        return f"unknown key {key}" + (f": did you mean {near[0]}?" if near else "")
    if fault["type"] in ("missing", "missing_argument"):
        return f"{key} is missing: set it in the file or give {key}=... on the command line"
    message = str(fault["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    if fault["type"] == "value_error":
        return message
    return f"{key}={fault['input']!r} {message}"


def _sections(kind: type) -> list[str]:
    return [n for n, t in typing.get_type_hints(kind).items() if dataclasses.is_dataclass(t)]
