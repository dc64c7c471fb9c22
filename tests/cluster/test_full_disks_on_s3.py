"""Each command on S3 whose temporary files find no room: the full disk is named, never the store; exit code 2."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import storage
from shards.pack import pack
from tests.cluster import real_s3
from tests.cluster.real_s3 import S3
from tests.shards.pack_inputs import pack_config, write_classes
from tests.small_disks import disk_at
from tests.train.launching import pretrain

SMALL = "[model]\nimage_size = 28\n[finetune]\nepochs = 1\nbatch = 8\nwarmup_epochs = 0\n"
COMMANDS = {
    "embed": "embed {weights} {set} --out {new}.npz",
    "embed to parquet": "embed {local} {set} --out {new}.parquet",
    "evaluate": "evaluate {evaluate} data.path={set} checkpoint={weights} out.url={new}",
    "fine-tune": "evaluate {evaluate} data.path={set} checkpoint={local} out.url={new}",
    "pack": "pack {pack} out.url={new}",
    "pack by two": "pack {pack} out.url={new} out.workers=2",
    "verify": "verify {set}",
    "reconstruct": "reconstruct {weights} {image} --out {new}.png",
    "export to timm": "export {local} --format timm --out {new}.pth",
    "export to safetensors": "export {local} --format safetensors --out {new}.safetensors",
    "export to a hub": "export {local} --format hf --out {new}",
}


@pytest.fixture(scope="module")
def server(rclone_server: S3) -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch:
        server = real_s3.with_new_bucket(rclone_server)
        real_s3.use(server, patch)
        yield server
    storage._filesystem.cache_clear()


@pytest.fixture(scope="module")
def words(server: S3, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the commands name: a set and weights on S3, the same weights on a disk, configs."""
    folder = tmp_path_factory.mktemp("made")
    images = write_classes(folder / "images", {"A": 20, "B": 20})
    remote = storage.join(server.url, "set")
    pack(pack_config(images, remote))
    made = pretrain(1, folder / "run", remote, "train.precision=fp32", "train.steps=1")
    assert made.returncode == 0, made.stderr
    local = f"{checkpoint_folder.checkpoint_url(str(folder / 'run'), 1)}/{checkpoint_folder.WEIGHTS}"
    weights = storage.join(server.url, "weights.safetensors")
    storage.put_file(local, weights)
    (folder / "pack.toml").write_text(
        f'[source]\nkind = "folder"\npath = "{images}"\n[out]\nurl = "x"\nshard_mb = 0.02\nworkers = 1\n'
    )
    (folder / "evaluate.toml").write_text(
        f'checkpoint = "none"\n[data]\npath = "x"\n{SMALL}[out]\nurl = "x"\n'
    )
    return {
        "set": remote, "weights": weights, "local": local, "image": str(next(images.rglob("*.jpg"))),
        "pack": str(folder / "pack.toml"), "evaluate": str(folder / "evaluate.toml"),
    }  # fmt: skip


@pytest.fixture
def tmpdir_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with disk_at(tmp_path / "small", "size=100m") as small:
        yield Room(small, monkeypatch)


class Room:
    """$TMPDIR on a small disk."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch

    def leave(self, room: int) -> None:
        """Fill it up to so many bytes, and have this process and those it starts use it."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        disk = os.statvfs(self.folder)
        (self.folder / "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize - room))
        self.patch.setenv("TMPDIR", str(self.folder))
        self.patch.setattr(tempfile, "tempdir", "/tmp")  # as torch's import leaves it where $TMPDIR is full

    def left(self) -> list[str]:
        return [
            path.name for path in self.folder.iterdir() if path.name not in ("filler", "torchinductor_root")
        ]


def assert_named(last: str, disk: Path) -> None:
    assert "No space left on device" in last
    assert f"the disk at {disk} is full (" in last
    assert "105 MB are free" in last
    assert "TMPDIR" in last
    assert "s3://" not in last


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_room_for_temporary_files_names_their_disk_and_leaves_nothing(
    name: str, words: dict[str, str], server: S3, tmpdir_with: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    new = storage.join(server.url, "new", name.replace(" ", "-"))
    arguments = COMMANDS[name].format(new=new, **words).split()
    for room in (4096, 12_288):
        tmpdir_with.leave(room)
        assert main(arguments) == 2
        assert_named(capsys.readouterr().err.strip().splitlines()[-1], tmpdir_with.folder)
        assert tmpdir_with.left() == []
    tmpdir_with.leave(95_000_000)
    assert main(arguments) == 0, capsys.readouterr().err


def test_features_of_weights_on_a_disk_need_no_room_for_temporary_files(
    words: dict[str, str], server: S3, tmpdir_with: Room
) -> None:
    tmpdir_with.leave(0)
    out = storage.join(server.url, "features.npz")
    assert main(["embed", words["local"], words["set"], "--out", out]) == 0
    assert storage.exists(out)


def test_a_run_without_room_for_temporary_files_names_their_disk_and_goes_on_with_room(
    words: dict[str, str], server: S3, tmpdir_with: Room
) -> None:
    run = storage.join(server.url, "run")
    settings = ["train.precision=fp32", "train.steps=2"]
    for room in (0, 40_960):  # from the start, and when the first checkpoint is saved
        tmpdir_with.leave(room)
        done = pretrain(1, run, words["set"], *settings, "checkpoint.patience_s=1")
        assert done.returncode == 2, done.stderr
        assert_named(done.stderr.strip().splitlines()[-1], tmpdir_with.folder)
        assert checkpoint_folder.list_steps(run) == []
    tmpdir_with.leave(95_000_000)
    done = pretrain(1, run, words["set"], *settings)
    assert done.returncode == 0, done.stderr
    assert checkpoint_folder.list_steps(run) == [2]
