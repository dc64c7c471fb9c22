"""A run from before fingerprints knows its shard set by the batches that it was trained on."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from retfound_dist.config.loading import load, to_dict
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import RunConflictError
from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.formats.checkpoint_folder import Commit
from retfound_dist.formats.content_identity import SHARD_SET, describe_set
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.train.old_run_data import check_old_run, planned_digest
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL

WRONG = "0" * 16


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Forty of the same images, packed anew."""
    return make_set(tmp_path_factory.mktemp("other"), count=40)


def config_of(run: Path, manifest: Manifest, *overrides: str) -> PretrainConfig:
    settings = [f"data.shards={manifest.url}", f"run.url={run}", *SMALL, "train.steps=90", *overrides]
    return load(PretrainConfig, "configs/demo/pretrain.toml", settings)[0]


def old_run(config: PretrainConfig, digests: dict[int, str], newest: str, fingerprint: object = None) -> None:
    """What a run leaves: a log with these digests by step, a commit of the last step, its config."""
    url, step = config.run.url, max(digests)
    config_tree = to_dict(config) | ({SHARD_SET: fingerprint} if fingerprint else {})
    run_folder.write_config(url, config_tree)
    run_folder.append_rows(
        url, run_folder.METRICS, [{"step": n, "batch_digest": digests[n]} for n in digests]
    )
    checkpoint_folder.write_commit(
        Commit(
            url=checkpoint_folder.checkpoint_url(url, step), step=step, samples=10 * step, world_size=1, zero_stage=2,
            precision="fp32", batch_digest=newest, time="2026-01-01T00:00:00+00:00", config=config_tree, files={},
        )
    )  # fmt: skip


def keys_in(manifest: Manifest) -> list[str]:
    """Every sample's key, read from the tars themselves."""
    keys = []
    for shard in manifest.shards:
        with tarfile.open(fileobj=io.BytesIO((Path(manifest.url) / shard.name).read_bytes())) as tar:
            keys += [name.partition(".")[0] for name in tar.getnames() if name.endswith(".json")]
    return keys


def test_the_digests_of_one_epoch_add_up_to_that_of_all_keys(manifest: Manifest, tmp_path: Path) -> None:
    """50 images in batches of 10: five steps see each once."""
    config = config_of(tmp_path, manifest)
    hashes = [hashlib.sha256(key.encode()).digest()[:8] for key in keys_in(manifest)]
    assert len(hashes) == 50
    total = sum(int(planned_digest(config, manifest, step), 16) for step in range(1, 6))
    assert total % 2**64 == sum(int.from_bytes(each, "big") for each in hashes) % 2**64
    assert len({planned_digest(config, manifest, step) for step in range(1, 6)}) == 5


def test_the_set_that_a_run_was_trained_on_is_known_and_another_one_is_refused(
    manifest: Manifest, other: Manifest, tmp_path: Path
) -> None:
    config = config_of(tmp_path, manifest)
    digests = {step: planned_digest(config, manifest, step) for step in (1, 2)}
    old_run(config, digests, digests[2])
    check_old_run(config, manifest)
    with pytest.raises(RunConflictError, match=r"step 2 was trained on other samples .*data\.first_shards=N"):
        check_old_run(config, other)


@pytest.mark.parametrize("agrees", ["log", "commit", "nothing"])
def test_one_step_that_agrees_is_enough(agrees: str, manifest: Manifest, tmp_path: Path) -> None:
    """A bad sample that was replaced changes the digest of its step, not the set."""
    config = config_of(tmp_path, manifest)
    log = {1: planned_digest(config, manifest, 1) if agrees == "log" else WRONG, 2: WRONG}
    old_run(config, log, planned_digest(config, manifest, 2) if agrees == "commit" else WRONG)
    if agrees == "nothing":
        with pytest.raises(RunConflictError, match="was trained on other samples"):
            check_old_run(config, manifest)
    else:
        check_old_run(config, manifest)


def test_only_the_newest_logged_steps_are_compared(manifest: Manifest, tmp_path: Path) -> None:
    """The digest of step 1 agrees, and no other: it counts while it is among the last twenty."""
    for last in (20, 21):
        config = config_of(tmp_path / f"last-{last}", manifest)
        digests = {1: planned_digest(config, manifest, 1)} | dict.fromkeys(range(2, last + 1), WRONG)
        old_run(config, digests, WRONG)
        if last == 20:
            check_old_run(config, manifest)
        else:
            with pytest.raises(RunConflictError, match="step 21 was trained on other samples"):
                check_old_run(config, manifest)


def test_nothing_is_asked_of_a_run_with_a_fingerprint_or_without_a_checkpoint(
    manifest: Manifest, tmp_path: Path
) -> None:
    config = config_of(tmp_path, manifest)
    check_old_run(config, manifest)  # there is no run yet
    old_run(config, {1: WRONG}, WRONG, describe_set(manifest))
    check_old_run(config, manifest)
    tree = json.loads((tmp_path / run_folder.CONFIG).read_text())
    del tree[SHARD_SET]
    (tmp_path / run_folder.CONFIG).write_text(json.dumps(tree))
    with pytest.raises(RunConflictError):
        check_old_run(config, manifest)
    (tmp_path / "checkpoints" / "step_00000001" / checkpoint_folder.COMMIT).unlink()
    check_old_run(config, manifest)
