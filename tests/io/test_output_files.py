"""No command overwrites what it did not write; what it wrote it may write again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.io import output_files, storage
from tests import ROOT
from tests.evaluate import inputs
from tests.runs.made_runs import make_run

EVALUATE, COMPARE, PACK = (f"{ROOT}/configs/demo/{name}.toml" for name in ("evaluate", "compare", "pack"))
TINY = [*inputs.TINY, "probe.enabled=false"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint, images, a shard set."""
    place = tmp_path_factory.mktemp("place")
    inputs.checkpoint(place / "run", 10)
    inputs.class_folders(place / "images", each=8)
    inputs.shard_set(place / "shards", [{"key": str(n), "label": None} for n in range(8)])
    make_run(str(place / "told"))
    return place


BATCH = ["batch", f"{ROOT}/configs/demo/pretrain.toml", "data.shards={root}/shards", "data.split=all",
         "train.global_batch=4", "train.micro_batch=4", "--step", "1"]  # fmt: skip
WRITERS = {
    "embed npz": (["embed", "{root}/run", "{root}/images"], "f.npz"),
    "embed parquet": (["embed", "{root}/run", "{root}/images"], "f.parquet"),
    "reconstruct": (["reconstruct", "{root}/run", "{root}/images/CSR/CSR_0.jpg"], "r.png"),
    "export mae": (["export", "{root}/run", "--format", "mae"], "w.pth"),
    "export timm": (["export", "{root}/run", "--format", "timm"], "w.pth"),
    "export safetensors": (["export", "{root}/run", "--format", "safetensors"], "w.safetensors"),
    "report": (["report", "{root}/told", "--no-pictures"], "page.html"),
    "batch": (BATCH, "sheet.png"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_others_is_refused_and_our_own_replaced(
    name: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, file = WRITERS[name]
    out = tmp_path / file
    whole = [*(part.format(root=place) for part in argv), "--out", str(out), "--quiet"]
    out.write_bytes(b"years of work")
    assert main(whole) == 2
    message = capsys.readouterr().err
    assert f"{out} exists and was not written by `retfound {argv[0]}`" in message
    assert "--force" in message
    assert len(message.splitlines()) == 1
    assert out.read_bytes() == b"years of work"
    assert list(tmp_path.iterdir()) == [out]
    assert main([*whole, "--force"]) == 0
    assert out.read_bytes() != b"years of work"
    assert main(whole) == 0, "its own file"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith((".tmp", ".parts"))]


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_in_place_of_the_file_is_refused_even_with_force(
    name: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, file = WRITERS[name]
    (tmp_path / file).mkdir()
    whole = [*(part.format(root=place) for part in argv), "--out", str(tmp_path / file), "--quiet", "--force"]
    assert main(whole) == 2
    assert "is a folder" in capsys.readouterr().err
    assert list((tmp_path / file).iterdir()) == []


def test_a_file_of_one_command_is_not_anothers(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    assert (
        main(["reconstruct", f"{place}/run", f"{place}/images/CSR/CSR_0.jpg", "--out", str(out), "--quiet"])
        == 0
    )
    assert output_files.has_mark(str(out), "reconstruct")
    assert main([*(part.format(root=place) for part in BATCH), "--out", str(out)]) == 2


def test_a_mark_in_the_middle_of_a_file_is_none(tmp_path: Path) -> None:
    """Only the ends are looked at: a large file is not read whole."""
    padding, mark = b"x" * (2 * output_files.SEARCHED_BYTES), output_files.mark("embed").encode()
    for data, ours in ((padding + mark + padding, False), (padding + mark, True), (mark + padding, True)):
        for url in (str(tmp_path / "f"), "memory://marks/f"):
            storage.write_bytes(url, data)
            assert output_files.has_mark(url, "embed") is ours


def test_exported_weights_that_were_changed_since_are_not_ours(place: Path, tmp_path: Path) -> None:
    argv = ["export", f"{place}/run", "--format", "timm", "--out", str(tmp_path / "w.pth"), "--quiet"]
    assert main(argv) == 0
    (tmp_path / "w.pth").write_bytes(b"fine-tuned for a week")
    assert main(argv) == 2
    assert (tmp_path / "w.pth").read_bytes() == b"fine-tuned for a week"
    (tmp_path / "w.pth").unlink()
    (tmp_path / "w.pth.md").write_text("my notes")
    assert main(argv) == 2
    assert (tmp_path / "w.pth.md").read_text() == "my notes"


def test_a_hub_folder_is_written_again_but_no_run_or_folder_of_others(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["export", f"{place}/run", "--format", "hf", "--quiet", "--out"]
    assert main([*argv, str(tmp_path / "hub")]) == 0
    assert main([*argv, str(tmp_path / "hub")]) == 0
    (tmp_path / "hub" / "README.md").unlink()
    assert main([*argv, str(tmp_path / "hub")]) == 2
    before = (place / "run" / "config.json").read_bytes()
    assert main([*argv, str(place / "run"), "--force"]) == 2
    assert "is a run" in capsys.readouterr().err
    assert (place / "run" / "config.json").read_bytes() == before


def test_embedding_leaves_what_others_keep_beside_its_parts(place: Path, tmp_path: Path) -> None:
    (tmp_path / "f.npz.parts").mkdir()
    (tmp_path / "f.npz.parts" / "mine.txt").write_text("kept")
    assert main(["embed", f"{place}/run", f"{place}/images", "--out", f"{tmp_path}/f.npz", "--quiet"]) == 0
    assert [path.name for path in (tmp_path / "f.npz.parts").iterdir()] == ["mine.txt"]


def evaluate(place: Path, out: Path, *more: str) -> int:
    """`retfound evaluate` of nothing on the images."""
    arguments = ["checkpoint=none", f"data.path={place}/images", f"out.url={out}", "threads=1", *TINY]
    return main(["evaluate", EVALUATE, *arguments, *more])


def test_an_evaluation_is_never_replaced_by_another(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e"
    assert evaluate(place, out) == 0
    metrics = (out / "metrics.json").read_bytes()
    assert not (out / evaluation_files.UNFINISHED).exists()
    assert evaluate(place, out) == 0, "the same again"
    assert "already evaluated" in capsys.readouterr().out
    for more, told in (
        ("seeds=[1]", "seeds is [0] there and [1] here"),
        (
            f"checkpoint={place}/run",
            f"checkpoint is none there and {place}/run/checkpoints/step_00000010 (step 10) here",
        ),
        (f"data.path={place}/shards", "data"),
        ("finetune.base_lr=1e-5", "finetune.base_lr is"),
    ):
        if "shards" in more:
            continue  # without labels
        assert evaluate(place, out, more) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert f"{out} holds another evaluation" in message
        assert told in message
        assert "--force" in message
        assert (out / "metrics.json").read_bytes() == metrics
    inputs.class_folders(tmp_path / "images", each=8, seed=50)
    assert evaluate(place, out, f"data.path={tmp_path}/images") == 2
    assert f"data are {place}/images there and {tmp_path}/images here" in capsys.readouterr().err
    assert evaluate(place, out, "seeds=[1]", "--force") == 0
    assert storage.read_json(str(out / "metrics.json"))["seeds"] == [1]


def _run(folder: Path) -> None:
    make_run(str(folder))


def _page(folder: Path) -> None:
    folder.mkdir()
    (folder / "report.html").write_text("mine")


def _strange(folder: Path) -> None:
    folder.mkdir()
    (folder / "metrics.json").write_text('{"accuracy": 1}')


def _shards(folder: Path) -> None:
    inputs.shard_set(folder, [{"key": "a", "label": None}])


@pytest.mark.parametrize("make", [_run, _page, _strange, _shards])
def test_an_evaluation_is_not_mixed_with_files_of_others(
    make: Callable[[Path], None], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "e")
    before = {path: path.read_bytes() for path in (tmp_path / "e").rglob("*") if path.is_file()}
    assert evaluate(place, tmp_path / "e") == 2
    assert str(tmp_path / "e") in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.read_bytes() for path in (tmp_path / "e").rglob("*") if path.is_file()} == before


def test_an_evaluation_that_was_cut_off_while_it_was_written_is_gone_on_with(
    place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e"
    assert evaluate(place, out) == 0
    (out / "metrics.json").unlink()
    (out / evaluation_files.UNFINISHED).write_text("{}")
    assert evaluate(place, out) == 0
    assert (out / "metrics.json").exists()


def test_a_comparison_is_never_replaced_by_another(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare(weights: str, *more: str) -> int:
        arguments = [
            f"data.path={place}/images",
            f"out.url={tmp_path}/c",
            f"out.report={tmp_path}/page.html",
            "jobs=1",
        ]
        return main(["compare", COMPARE, f"weights={weights}", *arguments, "threads=1", *TINY, *more])

    two = f'{{a="none", b="{place}/run"}}'
    assert compare(two) == 0
    assert compare(two) == 0
    capsys.readouterr()
    metrics = (tmp_path / "c" / "a" / "metrics.json").read_bytes()
    assert compare('{a="none", c="none"}') == 2
    assert "weights.b is missing in the new comparison" in capsys.readouterr().err
    assert compare(two, "seeds=[3]") == 2
    assert "holds another evaluation (seeds is [0] there and [3] here)" in capsys.readouterr().err
    assert (tmp_path / "c" / "a" / "metrics.json").read_bytes() == metrics
    (tmp_path / "page.html").write_text("mine")
    assert compare(two) == 2
    assert (tmp_path / "page.html").read_text() == "mine"
    assert compare(two, "--force") == 0


def test_a_shard_set_is_not_packed_over_files_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(str(tmp_path / "run"))
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "DATACARD.md").write_text("mine")
    for name, told in (("run", "is a run"), ("cards", "DATACARD.md exists, but no manifest")):
        assert main(["pack", PACK, f"out.url={tmp_path / name}", "--quiet", "--force"]) == 2
        assert told in capsys.readouterr().err
    assert (tmp_path / "cards" / "DATACARD.md").read_text() == "mine"


def test_the_refusal_says_what_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(
        ConfigError, match=r"x exists and was not written by `retfound embed`: give another --out"
    ):
        output_files.check_may_write(str(tmp_path / "x"), "embed", force=False)
