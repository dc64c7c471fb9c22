"""Completion in the shell, by argcomplete: commands, flags, files and, behind a config, its keys.

eval "$(retfound completion bash)"        (zsh the same; fish: retfound completion fish | source)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import argcomplete
from argcomplete.completers import FilesCompleter

from retfound_dist.config.reference import COMMANDS, keys_of
from retfound_dist.errors import RetfoundError

SHELLS = ("bash", "zsh", "fish")


def shell_code(shell: str) -> str:
    """The code that the shell evaluates."""
    return str(argcomplete.shellcode(["retfound"], shell=shell))


def complete_request(parser: argparse.ArgumentParser) -> None:
    """Answer a shell's request for completion (`_ARGCOMPLETE` is set), and exit."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                _set_completers(sub, complete_show_argument if name == "show" else complete_config_file)
    argcomplete.autocomplete(parser, always_complete_options="long")


def _set_completers(sub: argparse.ArgumentParser, complete_config: Callable[..., list[str]]) -> None:
    for action in sub._actions:
        if action.dest == "overrides":
            action.completer = complete_key  # type: ignore[attr-defined]
        elif action.dest == "config":
            action.completer = complete_config  # type: ignore[attr-defined]


def complete_config_file(prefix: str, **_: Any) -> list[str]:
    """Config files."""
    return list(FilesCompleter(("toml",))(prefix))


def complete_show_argument(prefix: str, **_: Any) -> list[str]:
    """Arguments of `show --keys`: config files and commands."""
    return [*complete_config_file(prefix), *(name for name in COMMANDS if name.startswith(prefix))]


def complete_key(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """`key=` for every key of the config that stands before; for all commands where its kind is not known."""
    kinds = list(COMMANDS.values())
    try:
        # Imported here: `loading` needs fsspec, for which a press of the tab key shall not wait.
        from retfound_dist.config.loading import config_class_of, read_toml

        kinds = [config_class_of(read_toml(parsed_args.config), parsed_args.config)]
    except (RetfoundError, AttributeError, TypeError):
        pass
    names = {key.name for kind in kinds for key in keys_of(kind)}
    return sorted(f"{name}=" for name in names if name.startswith(prefix))
