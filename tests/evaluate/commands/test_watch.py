from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch

from retfound_dist.cli import main
from retfound_dist.errors import ConfigError, FaultsFoundError
from retfound_dist.evaluate.commands.watch import last_step, steps_to_finetune, watch_command
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.watching import probe_results
from retfound_dist.evaluate.watching.watch_history import steps_with
from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.formats.checkpoint_folder import checkpoint_url, evaluation_url
from retfound_dist.io import storage
from tests.evaluate.inputs import TINY, checkpoint, class_folders


def watch(root: Path, *overrides: str) -> int:
    config = root / "watch.toml"
    config.write_text(f'[run]\nurl = "{root / "run"}"\n[data]\npath = "{root / "set"}"\n')
    fast = [*TINY, "finetune.epochs=1", "poll_seconds=0.01", "stop_after_minutes=0.0005"]
    return watch_command(str(config), [*fast, *overrides], quiet=True)


def forget(run: Path, step: int) -> None:
    """Make a checkpoint's weights say nothing."""
    url = checkpoint_url(str(run), step)
    file = f"{url}/{checkpoint_folder.WEIGHTS}"
    state = safetensors.torch.load_file(file)
    safetensors.torch.save_file({k: v * 0 for k, v in state.items()}, file)
    done = checkpoint_folder.read_commit(url)
    done.files[checkpoint_folder.WEIGHTS] = storage.file_info(file)
    checkpoint_folder.write_commit(done)


def tree(run: Path) -> dict:
    return json.loads((run / run_folder.WATCH).read_text())


def test_every_checkpoint_is_probed_and_fine_tuned_once_and_the_last_step_ends_it(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    run = tmp_path / "run"
    checkpoint(run, 10)
    assert watch(tmp_path) == 0
    assert steps_with(str(run), evaluation_files.METRICS) == [10]
    first = [Path(evaluation_url(str(run), 10)) / name for name in ("metrics.json", "probe.json")]
    stamps = [file.stat().st_mtime_ns for file in first]
    checkpoint(run, 20)
    assert watch(tmp_path, "stop_after_minutes=0") == 0
    assert steps_with(str(run), evaluation_files.METRICS) == [10, 20]
    assert [file.stat().st_mtime_ns for file in first] == stamps
    metrics = json.loads((Path(evaluation_url(str(run), 20)) / "metrics.json").read_text())
    assert metrics["checkpoint"]["step"] == 20
    rows = tree(run)["rows"]
    assert [row["step"] for row in rows] == [10, 20]
    assert all(row["finetuned"]["macro"]["auroc"] is not None for row in rows)
    assert rows[1]["to_best"]["step"] == 10
    assert rows[0]["to_best"] is None
    assert tree(run)["start"]["checkpoint"]["kind"] == "none"
    page = (run / "evaluations" / "report.html").read_text()
    assert "<th>step 10</th>" in page
    assert "No alarm was raised" in page
    gap = rows[1]["to_start"]
    real = gap["ci95"][0] > 0 or gap["ci95"][1] < 0
    told = wording.format_score(gap["difference"], gap["ci95"])
    assert f"{told}: {'a clear difference' if real else 'no clear difference on these images'}." in page


def test_a_method_that_cannot_be_used_is_refused_before_the_first_probe(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    checkpoint(tmp_path / "run", 10)
    method = ["finetune.method=lora", "finetune.lora_targets=['nothing']"]
    with pytest.raises(ConfigError, match="lora_targets"):
        watch(tmp_path, *method)
    assert steps_with(str(tmp_path / "run"), probe_results.PROBE) == []
    assert watch(tmp_path, *method, "finetune_every=0") == 0


def test_probes_look_at_no_test_image(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    checkpoint(tmp_path / "run", 10)
    watch(tmp_path)
    where = Path(evaluation_url(str(tmp_path / "run"), 10))
    tested = {
        line.split(",")[0] for line in (where / evaluation_files.PREDICTIONS).read_text().splitlines()[1:]
    }
    looked = {line.split(",")[0] for line in (where / probe_results.PREDICTIONS).read_text().splitlines()[1:]}
    assert tested
    assert len(looked) == 30 - len(tested)
    assert not looked & tested


def test_every_nth_and_the_last_are_fine_tuned_the_others_probed_alone(tmp_path: Path) -> None:
    assert steps_to_finetune([5, 10, 15, 20, 22], 2, 22) == [10, 20, 22]
    assert steps_to_finetune([5, 10, 15], 0, 15) == []
    class_folders(tmp_path / "set")
    run = tmp_path / "run"
    for step in (5, 10, 20):
        checkpoint(run, step)
    assert watch(tmp_path, "finetune_every=2") == 0
    assert steps_with(str(run), probe_results.PROBE) == [5, 10, 20]
    assert steps_with(str(run), evaluation_files.METRICS) == [10, 20]


def test_a_run_worse_than_its_start_or_falling_ends_in_alarm_once(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", each=20)
    run = tmp_path / "run"
    checkpoint(run, 10)
    assert watch(tmp_path, "finetune_every=0") == 0
    assert not (run / run_folder.ALARMS).exists()
    checkpoint(run, 15)
    forget(run, 15)
    for _ in range(2):  # a restart repeats nothing, and still says so
        with pytest.raises(
            FaultsFoundError, match=r"2 alarms in .*alarms\.jsonl; the last: step 15 is worse"
        ):
            watch(tmp_path, "finetune_every=0")
        rows = run_folder.read_rows(str(run), run_folder.ALARMS)
        assert [(row["step"], row["kind"], row["against_step"]) for row in rows] == [
            (15, "worse_than_start", 0),
            (15, "falling", 10),
        ]
    assert FaultsFoundError.exit_code == 1
    assert 'class="alarms"' in (run / "evaluations" / "report.html").read_text()


def test_alarm_stop_leaves_at_the_first(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", each=20)
    run = tmp_path / "run"
    for step in (10, 15, 20):
        checkpoint(run, step)
    forget(run, 15)
    with pytest.raises(FaultsFoundError, match="2 alarms"):
        watch(tmp_path, "finetune_every=0", "alarm.stop=true")
    assert steps_with(str(run), probe_results.PROBE) == [10, 15]


def test_starting_weights_come_from_the_runs_config_and_a_lost_file_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "set")
    run = tmp_path / "run"
    begun = checkpoint(tmp_path / "before", 20)
    checkpoint(run, 10)
    config = storage.read_json(str(run / "config.json"))
    config["model"]["init"] = begun
    storage.write_json(str(run / "config.json"), config)
    watch(tmp_path, "finetune_every=0")
    assert tree(run)["start"]["checkpoint"]["url"] == begun
    config["model"]["init"] = str(tmp_path / "lost.pth")
    storage.write_json(str(run / "config.json"), config)
    watch(tmp_path, "finetune_every=0")
    assert tree(run)["start"] is None
    assert tree(run)["rows"][0]["to_start"] is None


def test_other_labelled_images_mean_new_probes(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    run = tmp_path / "run"
    checkpoint(run, 10)
    watch(tmp_path, "finetune_every=0")
    before = tree(run)["rows"][0]
    next(root.rglob("MH_*.jpg")).unlink()
    watch(tmp_path, "finetune_every=0")
    after = tree(run)
    assert after["start"]["images"] < 24
    assert after["rows"][0] != before


def test_another_checkpoint_of_the_same_step_is_probed_and_fine_tuned_anew(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", shade=8)
    run = tmp_path / "run"
    checkpoint(run, 20)
    assert watch(tmp_path) == 0
    where = Path(evaluation_url(str(run), 20))
    before = {name: (where / name).read_bytes() for name in ("metrics.json", "probe.json")}
    storage.delete(checkpoint_url(str(run), 20))
    checkpoint(run, 20, seed=7)
    assert watch(tmp_path) == 0
    for name, data in before.items():
        old, new = json.loads(data), json.loads((where / name).read_bytes())
        assert old["checkpoint"]["sha256"] != new["checkpoint"]["sha256"], name
    storage.delete(checkpoint_url(str(run), 20))
    checkpoint(run, 10)
    assert watch(tmp_path, "finetune_every=0") == 0
    assert [row["step"] for row in tree(run)["rows"]] == [10, 20], "what was removed keeps its probe"


def test_a_run_that_went_back_is_watched_until_its_newest_checkpoint_is_of_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "set")
    run, waited = tmp_path / "run", list[float]()
    for step in (10, 20):
        checkpoint(run, step)
    checkpoint(run, 15, generation=1)  # back to step 10
    assert watch(tmp_path, "finetune_every=0") == 0  # by stop_after_minutes
    page = (run / "evaluations" / "report.html").read_text()
    assert "The newest checkpoint, step 15:" in page
    before = (Path(evaluation_url(str(run), 20)) / "probe.json").read_bytes()

    def arrive(seconds: float) -> None:
        """The run gets to its last step once more while it is waited for."""
        waited.append(seconds)
        storage.delete(checkpoint_url(str(run), 20))
        checkpoint(run, 20, seed=7, generation=1)

    monkeypatch.setattr("time.sleep", arrive)
    assert watch(tmp_path, "finetune_every=0", "stop_after_minutes=0") == 0
    assert len(waited) == 1  # then the run has reached its last step
    assert (Path(evaluation_url(str(run), 20)) / "probe.json").read_bytes() != before
    assert "The newest checkpoint, step 20:" in (run / "evaluations" / "report.html").read_text()


def test_an_uncommitted_checkpoint_is_not_seen(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    url = checkpoint(tmp_path / "run", 10)
    (Path(url) / "COMMIT.json").unlink()
    assert watch(tmp_path) == 0
    assert steps_with(str(tmp_path / "run"), probe_results.PROBE) == []


def test_the_last_step_comes_from_steps_or_from_epochs(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert last_step(run) is None
    storage.write_json(f"{run}/config.json", {"train": {"steps": 40}, "data": {}})
    assert last_step(run) == 40
    shards = [
        {
            "name": "a",
            "samples": 25,
            "bytes": 1,
            "sha256": "",
            "index": {"name": "a", "bytes": 1, "sha256": ""},
        }
    ]
    manifest = {"format": 1, "samples": 25, "shards": shards, "sources": {}, "image": {}, "skipped": []}
    storage.write_json(f"{run}/shards/manifest.json", manifest)
    train = {"steps": 0, "epochs": 3.0, "global_batch": 10}
    data = {"shards": f"{run}/shards", "split": "all"}
    storage.write_json(f"{run}/config.json", {"train": train, "data": data})
    assert last_step(run) == 8


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    with pytest.raises(ConfigError, match="there is nothing at"):
        watch(tmp_path)


def test_a_watch_makes_damaged_probes_again_and_goes_on_past_damaged_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "set")
    run = tmp_path / "run"
    checkpoint(run, 10)
    assert watch(tmp_path, "finetune_every=0") == 0
    where = Path(evaluation_url(str(run), 10))
    good = json.loads((where / probe_results.PROBE).read_text())
    (where / probe_results.PROBE).write_text("[]")
    (where / evaluation_files.METRICS).write_text('{"macro": 5')
    (run / run_folder.ALARMS).write_text('{broken\n[]\n{"message": 7}\n')
    capsys.readouterr()
    more = ["finetune_every=0", "poll_seconds=0.01", "stop_after_minutes=0.0005"]
    assert main(["watch", str(tmp_path / "watch.toml"), *TINY, *more]) == 0
    said = capsys.readouterr().out
    assert json.loads((where / probe_results.PROBE).read_text())["linear"] == good["linear"]
    assert (where / evaluation_files.METRICS).read_text() == '{"macro": 5'
    assert "probe.json is damaged: line 1: it is a list" in said
    assert "metrics.json is damaged: line 1: it is cut off" in said
    assert "3 of 3 lines of" in said
