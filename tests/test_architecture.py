"""The house is as docs/design.md draws it: which modules a room holds, and which rooms it may import."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import ROOT

ONLY_IN = {
    "deepspeed": {
        "retfound_dist/train/engine/deepspeed_engine.py",
        "retfound_dist/train/engine/deepspeed_patches.py",
    },
    "fsspec": {"retfound_dist/io/stores/fsspec_store.py"},
}
WITHOUT_TORCH = {"base", "plan", "shards"}
MOST_MODULES = 12
FILES = sorted([*(ROOT / "retfound_dist").rglob("*.py"), *(ROOT / "shards").rglob("*.py")])


def drawing() -> tuple[dict[str, set[str]], dict[str, list[str]], dict[str, set[str]]]:
    """The drawing in docs/design.md: blocks a block may import, rooms of a block in order, modules of a room."""
    (text,) = re.findall(r"```\n(base\n.*?)```", (ROOT / "docs/design.md").read_text(), re.DOTALL)
    may, rooms, modules = {}, {}, {}
    for line in text.splitlines():
        if not line.startswith(" "):
            block, _, others = (part.strip() for part in line.partition("<-"))
            may[block] = set(re.findall(r"\w+", others))
            rooms[block] = []
        elif not line.startswith("   "):
            room, *names = line.split()
            room = room.rstrip("/")
            rooms[block].append(room)
            modules[room] = set(names)
        else:
            modules[room] |= set(line.split())
    return may, rooms, modules


MAY_IMPORT, ROOMS, MODULES = drawing()
BLOCK_OF = {room: block for block, rooms in ROOMS.items() for room in rooms}


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def room_of(module: str) -> str | None:
    """The room of a module, by its dotted name; None where it is no module of ours."""
    path = ROOT / module.replace(".", "/")
    if not path.with_suffix(".py").exists() and not (path / "__init__.py").exists():
        return None
    name = module.removeprefix("retfound_dist").lstrip(".").replace(".", "/")
    if name in ("", "__main__"):
        return "cli"
    return name if name in MODULES or path.is_dir() else name.rpartition("/")[0]


def test_the_drawing_shows_every_module() -> None:
    there: dict[str, set[str]] = {room: set() for room in ("errors", "cli")}
    for path in FILES:
        folder = path.parent.relative_to(ROOT).as_posix().removeprefix("retfound_dist").lstrip("/")
        if not path.name.startswith("__") and folder:
            there.setdefault(folder, set()).add(path.stem)
    assert there == MODULES
    loose = {path.stem for path in (ROOT / "retfound_dist").glob("*.py")}
    assert loose == {"__init__", "__main__", "cli", "errors"}


def test_no_room_is_crowded_and_no_name_occurs_twice() -> None:
    assert {room: len(names) for room, names in MODULES.items() if len(names) > MOST_MODULES} == {}
    modules = Counter(name for names in MODULES.values() for name in names)
    classes = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in (modules + classes).items() if count > 1] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_imports_only_what_it_may(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    own = room_of(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    if own not in BLOCK_OF:
        assert path.name == "__init__.py", f"{name} is not in the drawing"
        assert not imports(path)
        return
    block = BLOCK_OF[own]
    above = ROOMS[block][: ROOMS[block].index(own) + 1]
    for module in imports(path):
        other = room_of(module)
        if other not in (None, "cli"):
            may = MAY_IMPORT[block]
            assert other in above or "all" in may or BLOCK_OF[str(other)] in may, f"{name} imports {module}"
        top = module.split(".")[0]
        assert name in ONLY_IN.get(top, {name}), f"{name} imports {module}"
        assert not (block in WITHOUT_TORCH and top == "torch"), f"{name} imports torch"


def test_every_room_says_what_it_holds_and_what_it_may_import() -> None:
    for room in MODULES:
        folder = ROOT / room if room.startswith("shards") else ROOT / "retfound_dist" / room
        if folder.is_dir() and not (folder / "schema").is_dir():
            text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
            assert "ay import" in text, f"{folder}/__init__.py"


def test_every_module_has_tests_of_its_name() -> None:
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests").rglob("test_*.py")}
    without = sorted({name for names in MODULES.values() for name in names} - tested)
    assert without == []


def test_help_answers_without_anything_heavy() -> None:
    code = "import sys, retfound_dist.cli; assert not {'torch', 'deepspeed', 'fsspec', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    shown = subprocess.run(
        [sys.executable, "-m", "retfound_dist", "--help"], check=True, capture_output=True, text=True
    )
    assert "pretrain" in shown.stdout


def test_packing_needs_no_torch() -> None:
    code = "import sys, shards.commands; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


READERS = {
    "retfound_dist/records/json_reader.py",  # the reader
    "retfound_dist/io/storage.py",  # `read_json`, for tests
    "retfound_dist/config/loading.py",  # plain values of a config of ours
    "retfound_dist/config/schema/finetune_settings.py",
    "retfound_dist/records/json_faults.py",
    "retfound_dist/formats/log_writer.py",
    "retfound_dist/train/ranks/rank_failures.py",  # messages between ranks
    "retfound_dist/train/ranks/collective_trace.py",  # what torch has just made
    "retfound_dist/runs/dashboard.py",  # what it has just written
}
"""Who may turn JSON into values by themselves."""
JSON = {"json.loads", "json.load"}
PARSERS = {"raw_decode", "from_json", "read_json", "validate_json", "model_validate_json"}
"""Calls that do so too, whatever they are called on."""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_json_files_have_one_reader(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    if name not in READERS:
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        strange = {call for call in calls if call in JSON or call.rpartition(".")[2] in PARSERS}
        assert not strange, f"{name} reads JSON by {strange}: use retfound_dist.records.json_reader"
