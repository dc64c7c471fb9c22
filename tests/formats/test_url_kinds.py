"""Each kind of thing at a URL is known for what it is; every command refuses the wrong ones in one line."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.formats import url_kinds
from retfound_dist.io import storage
from tests import ROOT
from tests.evaluate import inputs
from tests.runs.made_runs import make_run

PRETRAIN, EVALUATE, COMPARE = (
    f"{ROOT}/configs/demo/{name}.toml" for name in ("pretrain", "evaluate", "compare")
)
PACK, WATCH, SUITE = (f"{ROOT}/configs/{name}.toml" for name in ("pack_folder", "watch_octid", "suite_oct"))

THINGS = {
    "run": url_kinds.RUN,
    "fresh": url_kinds.RUN,
    "run/checkpoints/step_00000010": url_kinds.CHECKPOINT,
    "run/checkpoints/step_00000020": url_kinds.UNCOMMITTED,
    "shards": url_kinds.SHARDS,
    "packing": url_kinds.UNFINISHED_SHARDS,
    "tars": url_kinds.TARS,
    "images": url_kinds.IMAGES,
    "images/CSR/CSR_0.jpg": url_kinds.IMAGE,
    "evaluation": url_kinds.EVALUATION,
    "comparison": url_kinds.COMPARISON,
    "suite": url_kinds.SUITE,
    "hub": url_kinds.MODEL_FOLDER,
    "hub/model.safetensors": url_kinds.WEIGHTS,
    "notes.txt": url_kinds.FILE,
    "notes": url_kinds.FOLDER,
    "empty": url_kinds.EMPTY,
    "none": url_kinds.NOTHING,
}
"""Path below the fixture's folder -> what it is."""

HOLDS_WEIGHTS = {"run", "run/checkpoints/step_00000010", "hub/model.safetensors"}
FOLDERS = {
    name
    for name in THINGS
    if name not in ("notes.txt", "hub/model.safetensors", "images/CSR/CSR_0.jpg", "none")
}
COMMANDS: dict[str, tuple[list[str], set[str]]] = {
    "verify": (["verify", "{url}"], {"shards"}),
    "runs": (["runs", "{url}"], FOLDERS),
    "dashboard": (["dashboard", "{url}", "--port", "0"], FOLDERS),
    "report": (["report", "{url}", "--no-pictures"], {"run", "fresh"}),
    "export": (["export", "{url}", "--format", "timm", "--out", "{out}/w.pth"], HOLDS_WEIGHTS),
    "embed": (["embed", "{url}", "{root}/images", "--out", "{out}/f.npz"], HOLDS_WEIGHTS),
    "embed images": (["embed", "{root}/run", "{url}", "--out", "{out}/f.npz"], {"shards", "images"}),
    "reconstruct": (
        ["reconstruct", "{url}", "{root}/images/CSR/CSR_0.jpg", "--out", "{out}/r.png"],
        HOLDS_WEIGHTS,
    ),
    "reconstruct images": (
        ["reconstruct", "{root}/run", "{url}", "--out", "{out}/r.png"],
        {"images/CSR/CSR_0.jpg"},
    ),
    "evaluate": (
        ["evaluate", EVALUATE, "checkpoint={url}", "data.path={root}/images", "out.url={out}/e"],
        HOLDS_WEIGHTS,
    ),
    "evaluate images": (
        ["evaluate", EVALUATE, "checkpoint=none", "data.path={url}", "out.url={out}/e"],
        {"shards", "images"},
    ),
    "compare": (
        ["compare", COMPARE, 'weights={{last="{url}"}}', "data.path={root}/images", "out.url={out}/c"],
        HOLDS_WEIGHTS,
    ),
    "suite": (
        [
            "suite",
            SUITE,
            'weights={{last="{url}"}}',
            "sets={{a={{path='{root}/images'}}}}",
            "out.url={out}/s",
        ],
        HOLDS_WEIGHTS,
    ),
    "watch": (["watch", WATCH, "run.url={url}", "data.path={root}/images"], {"run", "fresh"}),
    "pretrain": (["pretrain", PRETRAIN, "data.shards={url}", "run.url={out}/r"], {"shards"}),
    "plan": (["plan", PRETRAIN, "data.shards={url}"], {"shards", "none", "empty"}),
    "batch": (["batch", PRETRAIN, "data.shards={url}", "--step", "1"], {"shards"}),
    "pack": (
        ["pack", PACK, "source.path={url}", "out.url={out}/s"],
        FOLDERS - {"empty", "notes", "packing", "tars"},
    ),
    "config": (["evaluate", "{url}"], set()),
}
"""A command line with one URL in it, and those things that it takes (what becomes of these is not looked at)."""
CASES = [
    pytest.param(name, thing, id=f"{name}-{thing}")
    for name, (_, taken) in COMMANDS.items()
    for thing in THINGS
    if thing not in taken
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of each thing."""
    place = tmp_path_factory.mktemp("things")
    inputs.checkpoint(place / "run", 10)
    cut_off = place / "run/checkpoints/step_00000020"
    cut_off.mkdir()
    (cut_off / "model.safetensors").write_bytes(b"half")
    shutil.rmtree(Path(make_run(str(place / "fresh"))) / "checkpoints")
    inputs.class_folders(place / "images", each=4)
    inputs.shard_set(place / "shards", [{"key": "a", "label": "CSR"}])
    for folder, names in {
        "packing": ["packing.json"], "tars": ["a.tar"], "hub": ["config.json"], "notes": ["a.txt"],
        "evaluation": ["metrics.json", "predictions.csv"], "comparison": ["compare.json", "table.md"], "suite": ["suite.json", "suite.md"],
        "empty": [],
    }.items():  # fmt: skip
        (place / folder).mkdir()
        for name in names:
            (place / folder / name).write_text('{"architecture": "vit"}')
    shutil.copy(place / "run/checkpoints/step_00000010/model.safetensors", place / "hub")
    (place / "notes.txt").write_text("x")
    before = tree(place)
    yield place
    assert tree(place) == before, "a refused command has written beside what it was given"


def tree(folder: Path) -> dict[str, str]:
    """Every file with its content's hash."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("thing", THINGS)
def test_each_thing_is_known_for_what_it_is(thing: str, root: Path) -> None:
    assert url_kinds.kind_at(str(root / thing)) == THINGS[thing]
    assert url_kinds.kind_at(f"{root / thing}/" if thing in FOLDERS else str(root / thing)) == THINGS[thing]


@pytest.mark.parametrize(("name", "thing"), CASES)
def test_a_wrong_url_is_refused_in_one_line(
    name: str, thing: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [part.format(url=root / thing, root=root, out=tmp_path) for part in COMMANDS[name][0]]
    assert main([*argv, "--quiet"]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("retfound: ")
    assert str(root / thing) in lines[0]
    assert "Error" not in lines[0]
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["w.PTH", "w.ckpt", "w.bin", "w.safetensors"])
def test_files_are_known_by_their_ends_whatever_their_case(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert url_kinds.kind_at(str(tmp_path / name)) == url_kinds.WEIGHTS
    (tmp_path / "1.JPG").write_bytes(b"x")
    assert url_kinds.kind_at(str(tmp_path / "1.JPG")) == url_kinds.IMAGE


def test_images_are_found_two_folders_down_and_no_deeper(tmp_path: Path) -> None:
    """A folder of class folders within parts is one of images; more levels would list a whole disk."""
    for path in ("near/train/CNV/1.png", "far/set/train/CNV/1.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"x")
    assert url_kinds.kind_at(str(tmp_path / "near")) == url_kinds.IMAGES
    assert url_kinds.kind_at(str(tmp_path / "far")) == url_kinds.FOLDER


def test_kinds_are_known_on_a_store_without_folders() -> None:
    url = "memory://url-kinds/set"
    assert url_kinds.kind_at(url) == url_kinds.NOTHING
    storage.write_text(f"{url}/packing.json", "{}")
    assert url_kinds.kind_at(url) == url_kinds.UNFINISHED_SHARDS
    storage.write_text(f"{url}/manifest.json", "{}")
    assert url_kinds.kind_at(f"{url}/") == url_kinds.SHARDS
    storage.delete(url)


@pytest.mark.parametrize("wanted", [url_kinds.SHARDS, url_kinds.RUN, url_kinds.WEIGHTS])
def test_a_refusal_says_what_is_there_and_what_to_give_instead(wanted: str, root: Path) -> None:
    for thing, kind in THINGS.items():
        url = str(root / thing)
        said = url_kinds.wrong_kind_message(url, wanted)
        found, _, instead = said.partition(": ")
        assert url in found
        assert instead
        assert "{" not in said
        assert "\n" not in said
        if kind == url_kinds.NOTHING:
            assert found.startswith("there ")
        elif kind != wanted:
            assert found.startswith(f"{url} is {kind}, not a ")


def test_why_a_folder_is_no_run_names_its_config(root: Path) -> None:
    assert url_kinds.not_run_reason(str(root / "fresh")) == ""
    assert "its config.json is damaged or of another program" in url_kinds.not_run_reason(str(root / "hub"))
    assert url_kinds.is_run(str(root / "run"))
    assert not url_kinds.is_run(str(root / "none"))
