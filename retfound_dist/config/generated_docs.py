"""Generates parts of `docs/`: `docs/config.md`, and the output below each `$ retfound ...`.

    python -m retfound_dist.config.generated_docs            write them again
    python -m retfound_dist.config.generated_docs --check    exit 1 and name the pages that are out of date

In a page, a block that begins with the line ```console and whose first line is `$ retfound plan ...` or
`$ retfound show ...` holds that command's output and is generated again. Other blocks stay as they are.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from retfound_dist.config.reference import COMMANDS, keys_of, sections_of

ROOT = Path(__file__).resolve().parents[2]
GENERATED_BLOCK = re.compile(r"```console\n\$ (retfound (?:plan|show) [^\n]*)\n(.*?)```", re.S)
PAGE_HEADER = """# Settings

This page lists every config key. `retfound show --keys pretrain` prints the keys of one command, and
`retfound show --keys` those of all commands.

Set a key in the config file, or on the command line: `optim.base_lr=3e-4`. `retfound show CONFIG.toml` prints
the resulting values and where each of them was set.

`python -m retfound_dist.config.generated_docs` makes this page from `retfound_dist/config/schema/`.
"""


def config_page() -> str:
    """`docs/config.md`."""
    return "\n".join([PAGE_HEADER, *(line for command in COMMANDS for line in _command_section(command))])


def _command_section(command: str) -> Iterator[str]:
    """The lines of a command's section: its config sections, then a table of its keys."""
    kind = COMMANDS[command]
    yield f"## retfound {command}"
    yield ""
    for name, meaning in sections_of(kind):
        yield f"- `{name}`: {meaning}"
    yield ""
    yield "| key | type | default | unit | meaning | source |"
    yield "|---|---|---|---|---|---|"
    for key in keys_of(kind):
        default = key.default if key.default == "required" else f"`{key.default}`"
        meaning = key.meaning.replace(f" ({key.source})", "") if key.source else key.meaning
        cells = (f"`{key.name}`", key.type, default, key.unit, meaning, key.source)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def with_current_output(page: str) -> str:
    """The page with the present output of its commands."""
    return GENERATED_BLOCK.sub(lambda match: f"```console\n$ {match[1]}\n{command_output(match[1])}```", page)


def command_output(command: str) -> str:
    """The output of a `retfound` command that runs in the repository's root, without Slurm's variables."""
    # `plan` reads the number of nodes from Slurm, and a page must not depend on where it is made.
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    words = [sys.executable, "-m", "retfound_dist", *shlex.split(command)[1:]]
    result = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return "".join(line.rstrip() + "\n" for line in result.stdout.splitlines())


def generated_pages() -> Iterator[tuple[Path, str]]:
    """(file, expected content) of every page with generated parts."""
    yield ROOT / "docs" / "config.md", config_page()
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text()
        if path.name != "config.md" and GENERATED_BLOCK.search(text):
            yield path, with_current_output(text)


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; 1 when a page is not as it should be"
    )
    args, stale = parser.parse_args(), 0
    for path, text in generated_pages():
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        if not args.check:
            path.write_text(text)
        print(f"{path.relative_to(ROOT)}: {'not as the code says' if args.check else 'written'}")
    return int(bool(stale and args.check))


if __name__ == "__main__":
    sys.exit(main())
