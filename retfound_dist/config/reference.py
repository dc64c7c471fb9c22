"""Lists every config key, from the annotations and docstrings of the schema: `retfound show --keys`."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MinLen

from retfound_dist.config import schema
from retfound_dist.errors import ConfigError

COMMANDS = {
    "pack": schema.PackConfig,
    "pretrain": schema.PretrainConfig,
    "evaluate": schema.EvaluateConfig,
    "watch": schema.WatchConfig,
    "compare": schema.CompareConfig,
    "suite": schema.SuiteConfig,
}
"""Command and the class of its config."""
# A docstring says the unit already. Reading it from there keeps one place for it.
_UNITS_BY_MEANING = (
    (r"pixel", "pixels"),
    (r"(?<![a-z])GB(?![a-z])", "GB (10^9 bytes)"),
    (r"(?<![a-z])MB(?![a-z])", "MB (10^6 bytes)"),
    (r"(?<![a-z])mm(?![a-z])", "mm"),
)
_UNITS_BY_NAME = (
    (r"^finetune_every$", "checkpoints"),
    (r"_s$", "s"),
    (r"seconds", "s"),
    (r"minutes", "min"),
    (r"epochs$", "epochs"),
    (r"(^|_)steps?$|_every$", "steps"),
    (r"batch", "images"),
    (r"workers$", "processes"),
    (r"threads$", "threads"),
    (r"shards$", "shards"),
    (r"fraction|mask_ratio|flip$", "share, 0 to 1"),
)
_SOURCE = re.compile(r"\(((?:[^()]|\([^()]*\))*\b(?:MAE|RETFound|torchvision|timm|Zhou|He et al)[^()]*)\)")


@dataclass(frozen=True)
class Key:
    """One setting."""

    name: str
    """Dotted, as in an override."""
    type: str
    default: str
    """As TOML; `required` where there is none."""
    unit: str
    """Empty where it has none."""
    meaning: str
    source: str
    """The article that the default comes from, where its docstring names one."""


def keys_of(config_class: type, prefix: str = "") -> Iterator[Key]:
    """Every key of a config class, in its order."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):
        hint, name = hints[field.name], prefix + field.name
        annotation = _without_annotation(hint)
        if dataclasses.is_dataclass(annotation):
            yield from keys_of(typing.cast(type, annotation), f"{name}.")
            continue
        if table := named_table(annotation):
            yield from keys_of(table, f"{name}.NAME.")
            continue
        meaning = _meaning(config_class, field.name)
        source = _SOURCE.search(meaning) or _SOURCE.search(" ".join((config_class.__doc__ or "").split()))
        type_text = type_name(hint)
        unit = _unit_of(field.name, meaning) if re.search("integer|number", type_text) else ""
        yield Key(name, type_text, _default_text(field), unit, meaning, source[1] if source else "")


def _meaning(config_class: type, name: str) -> str:
    """The docstring of a key, from the class that defines it: pydantic does not hand it down."""
    described = [vars(kind).get("__pydantic_fields__", {}).get(name) for kind in config_class.__mro__]
    texts = [field.description for field in described if field is not None and field.description]
    return " ".join(texts[0].split()) if texts else ""


def sections_of(kind: type) -> Iterator[tuple[str, str]]:
    """(name, meaning) of a config's sections."""
    for field in dataclasses.fields(kind):
        section = _without_annotation(typing.get_type_hints(kind)[field.name])
        if dataclasses.is_dataclass(section):
            yield field.name, " ".join((section.__doc__ or "").split())


def type_name(hint: Any) -> str:
    """An annotation in words: `integer >= 1`, `"jpg" or "png"`, `two numbers`."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *limits = typing.get_args(hint)
        return " ".join([type_name(inner), *_limit_texts(limits)])
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(json.dumps(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(type_name(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return _tuple_name(typing.get_args(hint))
    if typing.get_origin(hint) is dict:
        key, value = typing.get_args(hint)
        return f"table of {type_name(key)} = {type_name(value)}"
    if hint is Any:
        return "value"
    if is_dataclass(hint):
        return f"tables as [{hint.__name__.lower()}]"  # type: ignore[union-attr]
    return {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "nothing"}.get(
        hint, str(hint)
    )


def named_table(hint: Any) -> type | None:
    """The class of the tables in `dict[str, Class]`, written as [key.NAME]; None for other annotations."""
    if typing.get_origin(hint) is dict and is_dataclass(typing.get_args(hint)[1]):
        return typing.cast(type, typing.get_args(hint)[1])
    return None


def _tuple_name(parts: Sequence[Any]) -> str:
    if len(parts) == 2 and parts[1] is Ellipsis and is_dataclass(parts[0]):
        return type_name(parts[0])
    if len(parts) == 2 and parts[1] is Ellipsis:
        return f"list of {type_name(parts[0])}"
    return f"[{', '.join(type_name(part) for part in parts)}]"


def _limit_texts(limits: Sequence[Any]) -> Iterator[str]:
    """Each limit of a key as text, such as `>= 1`."""
    for limit in limits:
        for bound in getattr(limit, "metadata", [limit]):
            for kind, symbol in ((Gt, ">"), (Ge, ">="), (Lt, "<"), (Le, "<=")):
                if isinstance(bound, kind):
                    yield f"{symbol} {getattr(bound, kind.__name__.lower()):g}"
            if isinstance(bound, MinLen):
                yield f"of {bound.min_length} or more"


def _without_annotation(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _default_text(field: dataclasses.Field[Any]) -> str:
    """A key's default as JSON, or `required`."""
    value = field.default
    if value is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    value = getattr(value, "default", value)  # pydantic's own Field(...)
    if value is dataclasses.MISSING or repr(value) == "PydanticUndefined":
        return "required"
    return json.dumps(value)


def _unit_of(name: str, meaning: str) -> str:
    """The unit of a key, by its name or else by words of its meaning; empty without one."""
    for pattern, unit in _UNITS_BY_NAME:
        if re.search(pattern, name):
            return unit
    return next((unit for pattern, unit in _UNITS_BY_MEANING if re.search(pattern, meaning)), "")


def commands_for(text: str) -> list[str]:
    """The commands for `show --keys TEXT`: all, one by its name, or the one that a file is for."""
    if not text:
        return list(COMMANDS)
    if text in COMMANDS:
        return [text]
    if not text.endswith(".toml"):
        raise ConfigError(f"show --keys {text}: give a config file or one of {', '.join(COMMANDS)}")
    from retfound_dist.config.loading import config_class_of, read_toml

    kind = config_class_of(read_toml(text), text)
    return [name for name, config_class in COMMANDS.items() if config_class is kind]


def key_lines(commands: Sequence[str]) -> Iterator[str]:
    """Lines for people: the key with its type and default, its meaning below it."""
    for number, command in enumerate(commands):
        if number:
            yield ""
        yield f"retfound {command}"
        for key in keys_of(COMMANDS[command]):
            unit = f"; {key.unit}" if key.unit else ""
            default = key.default if key.default == "required" else f"default {key.default}"
            yield f"  {key.name}  ({key.type}; {default}{unit})"
            cited = key.source and key.source not in key.meaning
            yield f"      {key.meaning}" + (f" ({key.source})" if cited else "")


def keys_tree(commands: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """All keys of these commands as plain values, ready for JSON."""
    return {name: [dataclasses.asdict(key) for key in keys_of(COMMANDS[name])] for name in commands}
