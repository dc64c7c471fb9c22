"""Detects a config file that is missing or in the wrong place, and names the command that was meant."""

from __future__ import annotations

import argparse
import os

from retfound_dist.errors import ConfigError

PRESETS = {
    "pack": "configs/pack_folder.toml",
    "verify": "configs/pack_folder.toml",
    "evaluate": "configs/evaluate_octid.toml",
    "watch": "configs/watch_octid.toml",
    "compare": "configs/compare_octid.toml",
    "suite": "configs/suite_oct.toml",
}
"""The config file to begin with, by command."""
PRETRAIN = "configs/pretrain_vitl_oct.toml"
"""The config file for all other commands."""


def check_config(args: argparse.Namespace) -> None:
    """Raises ConfigError where key=value or a folder is given instead of CONFIG.toml."""
    repair = getattr(args, "repair", [""])
    path = str(getattr(args, "config", repair[0]))
    words = [path, *getattr(args, "overrides", repair[1:])]
    command = f"retfound {args.name}" + (f" {args.url} --repair" if args.name == "verify" else "")
    if "=" in path and not os.path.exists(path):
        files = [text for text in words if text.endswith(".toml") and "=" not in text]
        config_file = files[0] if files else PRESETS.get(args.name, PRETRAIN)
        rest = " ".join(text for text in words if text not in files)
        raise ConfigError(
            f"{args.name}: CONFIG.toml is missing: {path} is given instead. "
            f"Put {'it' if files else 'a config file, such as the preset,'} first: "
            f"{command} {config_file} {rest}"
        )
    if path and os.path.isdir(path):
        more = f" source.path={path} out.url=SHARDS" if args.name == "pack" else " key=value ..."
        raise ConfigError(
            f"{args.name}: {path} is a folder, not a CONFIG.toml: give a config file, "
            f"such as the preset: {command} {PRESETS.get(args.name, PRETRAIN)}{more}"
        )
