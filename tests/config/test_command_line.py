"""The arguments of every command, and their help."""

import argparse

import pytest

from retfound_dist.cli import COMMANDS
from retfound_dist.config.command_line import build_parser, parse_arguments


def subparsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def test_every_command_has_a_parser_and_a_function() -> None:
    assert list(subparsers()) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_describes_each_option_and_fits_80_columns(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = subparsers()[name]
    assert max(map(len, command.format_help().splitlines())) <= 80
    assert [a.dest for a in command._actions if not a.help and not a.choices] == []


def test_overrides_follow_the_config_or_the_options() -> None:
    args = parse_arguments(["plan", "a.toml", "b=1", "--nodes", "2", "c=2"])
    assert (args.name, args.config, args.overrides, args.nodes) == ("plan", "a.toml", ["b=1", "c=2"], 2)
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["verify", "somewhere", "a=b"])
