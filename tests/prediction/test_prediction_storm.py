"""`retfound predict` is killed with kill -9 again and again: the next start continues, to the same bytes."""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.prediction import prediction_run
from tests.evaluate.inputs import class_folders, list_patients

KILLS = 10
PART_IMAGES = 8
POLL_S = 0.005


def _predict(arguments: list[str]) -> None:
    prediction_run.PART_IMAGES = PART_IMAGES  # many parts of few images
    sys.exit(main(["predict", *arguments]))


def start(kept: Path, images: Path, out: Path, workers: int = 1) -> ForkServerProcess:
    """The command in a process of its own, without the seconds that importing torch takes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["retfound_dist.prediction.predict_command"])
    options = ["--out", str(out), "--workers", str(workers), "--quiet"]
    process = context.Process(target=_predict, args=([str(kept / "out"), str(images), *options],))
    process.start()
    return process


def parts_of(out: Path) -> set[Path]:
    return set(out.with_name(f"{out.name}.parts").glob("*.npz"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = class_folders(tmp_path_factory.mktemp("images") / "set", each=70, shade=8, seed=500)
    list_patients(root)
    return root


def test_a_killed_prediction_continues_after_its_last_part(kept: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    process = start(kept, images, out)
    while len(parts_of(out)) < 3 and process.is_alive():
        time.sleep(POLL_S)
    process.kill()
    process.join()
    assert not out.exists()
    finished = {path: path.stat().st_mtime_ns for path in parts_of(out)}
    assert len(finished) >= 3
    arguments = [str(kept / "out"), str(images), "--out", str(out), "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_run, "PART_IMAGES", PART_IMAGES)
        # Parts that stay, to compare their times.
        patch.setattr("retfound_dist.prediction.prediction_parts.PartFolder.delete", lambda _: None)
        assert main(["predict", *arguments]) == 0
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert main(["predict", *arguments[:3], str(tmp_path / "fresh.csv"), "--quiet"]) == 0
    assert out.read_bytes() == (tmp_path / "fresh.csv").read_bytes()


@pytest.mark.slow
def test_a_prediction_killed_ten_times_gives_the_same_file(kept: Path, images: Path, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    draw, out, whole = random.Random(seed), tmp_path / "p.csv", tmp_path / "whole.csv"
    assert main(["predict", str(kept / "out"), str(images), "--out", str(whole), "--quiet"]) == 0
    kills = reused = 0
    while kills < KILLS:
        before = len(parts_of(out))
        reused += before > 0
        process = start(kept, images, out, workers=1 + kills % 2)
        wanted = before + draw.randrange(3)
        while len(parts_of(out)) < wanted and process.is_alive():
            time.sleep(POLL_S)
        time.sleep(draw.random() * 0.3)
        process.kill()
        process.join()
        kills += process.exitcode != 0
        if out.exists():
            assert out.read_bytes() == whole.read_bytes()
            out.unlink()
    # What a kill in the middle of a write leaves: of a part, and of the file itself.
    parts = out.with_name(f"{out.name}.parts")
    parts.mkdir(exist_ok=True)
    for name in (f"{'0a' * 16}.npz", f"../{out.name}"):
        parts.joinpath(f"{name}.0123abcd.tmp").write_bytes(b"half")
    process = start(kept, images, out)
    process.join()
    assert process.exitcode == 0
    assert out.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "p.csv" in path.name] == ["p.csv"]
    assert reused
