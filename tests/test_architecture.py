"""Who may import whom (docs/design.md), and that nothing heavy happens at import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASE = {
    "config",
    "decoding",
    "errors",
    "unexpected",
    "records",
    "json_faults",
    "logrows",
    "logwriter",
    "runconfig",
    "scorefiles",
    "storage",
    "world",
    "schema",
    "shardset",
    "commit",
    "runlog",
    "retry",
    "scratch",
    "ranges",
    "pixels",
    "forecast",
    "shapes",
    "memory",
    "heldout",
    "grace",
    "drawing",
    "versions",
    "urls",
    "s3keys",
    "store_errors",
    "outputs",
    "passed_over",
    "foreign_text",
    "terminal",
    "folder_walk",
    "folder_layout",
    "image_files",
    "kinds",
    "verified",
    "tables",
    "columns",
    "listings",
    "sequences",
    "units",
    "class_names",
    "identity",
    "image_digests",
    "foldermarks",
    "runsummary",
    "disks",
    "leftovers",
    "waiting",
    "names",
    "exclusive",
    "locks",
    "set_counts",
    "set_files",
}
MAY_IMPORT = {
    "shards": {"shards", "base"},
    "base": {"base"},
    "stream": {"base", "stream"},
    "model": {"base", "model"},
    "train": {"base", "stream", "model", "train"},
    "evaluate": {"base", "stream", "model", "evaluate"},
    "cockpit": {"base", "stream", "model", "train", "evaluate", "cockpit"},
    "cli": {"cli", "base", "stream", "model", "train", "evaluate", "shards", "cockpit"},
}
ONLY_IN = {
    "deepspeed": {"retfound_dist/train/engine.py"},
    "webdataset": {"retfound_dist/stream/reader.py", "shards/pack.py"},
    "fsspec": {"retfound_dist/storage.py"},
}
FILES = sorted([*(ROOT / "retfound_dist").rglob("*.py"), *(ROOT / "shards").rglob("*.py")])


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


def room(module: str) -> str | None:
    """Which part of the house a module belongs to."""
    parts = module.split(".")
    if parts[0] == "shards":
        return "shards"
    if parts[0] != "retfound_dist" or len(parts) == 1:
        return None
    return "base" if parts[1] in BASE else "cli" if parts[1] in ("cli", "__main__") else parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_imports_only_what_lies_below_it(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    own = (
        room(name.removesuffix(".py").replace("/", ".")) if not name.endswith("dist/__init__.py") else "base"
    )
    assert own in MAY_IMPORT, f"{name} lies outside the house"
    for module in imports(path):
        other = room(module)
        assert other is None or other == "__init__" or other in MAY_IMPORT[own], f"{name} imports {module}"
        top = module.split(".")[0]
        assert name in ONLY_IN.get(top, {name}), f"{name} imports {module}"
        assert not (own in ("shards", "base") and top == "torch"), f"{name} imports torch"


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
    "retfound_dist/records.py",  # the reader
    "retfound_dist/storage.py",  # `read_json`, for tests
    "retfound_dist/config.py",  # plain values of a config of ours
    "retfound_dist/schema/evaluate.py",
    "retfound_dist/json_faults.py",
    "retfound_dist/logwriter.py",
    "retfound_dist/train/failures.py",  # messages between ranks
    "retfound_dist/cockpit/dashboard.py",  # what it has just written
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
        assert not strange, f"{name} reads JSON by {strange}: use retfound_dist.records"
