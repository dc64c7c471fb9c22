"""What a watch knows of a run: what stands in its folder, from the same images, settings and weights."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.loading import load as load_config
from retfound_dist.config.schema import WatchConfig
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.evaluate.probe import attentive_probe
from retfound_dist.evaluate.watching import probe_results, watch_history
from retfound_dist.evaluate.watching.watch_history import History, is_probe_of, steps_with
from retfound_dist.formats import run_folder
from retfound_dist.formats.checkpoint_folder import checkpoint_url, evaluation_url
from retfound_dist.io import storage
from retfound_dist.runtime.progress import ProgressDisplay
from tests.evaluate.inputs import TINY, checkpoint, class_folders

Watched = tuple[WatchConfig, LabelledSet]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A run of two checkpoints, both probed."""
    run = tmp_path / "run"
    (tmp_path / "w.toml").write_text(
        f'[run]\nurl = "{run}"\n[data]\npath = "{class_folders(tmp_path / "set")}"\n'
    )
    config, _ = load_config(WatchConfig, str(tmp_path / "w.toml"), [*TINY, "bootstrap=20"])
    for step in (10, 20):
        checkpoint(run, step)
    data = load_labelled_set(config.data, 28)
    with ProgressDisplay(quiet=True) as show:
        for step in (10, 20):
            start = open_starting_weights(checkpoint_url(str(run), step), config.model)
            probe_results.probe_checkpoint(
                start, data, config.probe, config.bootstrap, evaluation_url(str(run), step), show
            )
    return config, data


def change(config: WatchConfig, *overrides: str) -> WatchConfig:
    """The same watch with other settings."""
    path = Path(config.run.url).parent / "w.toml"
    return load_config(WatchConfig, str(path), [*TINY, "bootstrap=20", *overrides])[0]


def test_steps_are_those_whose_folder_holds_the_file_rising(tmp_path: Path) -> None:
    run = str(tmp_path)
    assert steps_with(run, "probe.json") == []
    for name in (
        "step_00000020/probe.json",
        "step_00000003/probe.json",
        "step_00000005/x",
        "start/probe.json",
    ):
        storage.write_json(storage.join(watch_history.folder(run), name), {})
    storage.write_json(storage.join(watch_history.folder(run), "step_100/probe.json"), {})
    assert steps_with(run, "probe.json") == [3, 20]


def test_probes_of_other_images_or_settings_are_not_taken(watched: Watched) -> None:
    config, data = watched
    said: list[str] = []
    assert sorted(History.load(config, data, said.append).steps) == [10, 20]
    assert History.load(change(config, "probe.folds=3"), data, said.append).steps == {}
    assert History.load(change(config, "bootstrap=21"), data, said.append).steps == {}
    next(Path(data.path).rglob("MH_*.jpg")).unlink()
    assert History.load(config, load_labelled_set(config.data, 28), said.append).steps == {}
    assert said == []


def test_a_probe_belongs_to_the_weights_that_it_was_made_of_and_outlives_them(watched: Watched) -> None:
    config, data = watched
    url = checkpoint_url(config.run.url, 20)
    held = History.load(config, data, print).steps[20]
    assert is_probe_of(url, held)
    storage.delete(url)
    assert is_probe_of(url, held), "what was removed cannot have changed"
    checkpoint(Path(config.run.url), 20, seed=7)
    assert not is_probe_of(url, held)
    assert sorted(History.load(config, data, print).steps) == [10]


def test_a_damaged_probe_is_said_once_and_not_taken(watched: Watched) -> None:
    config, data = watched
    Path(evaluation_url(config.run.url, 10), probe_results.PROBE).write_text("[]")
    said: list[str] = []
    history = History.load(config, data, said.append)
    assert sorted(history.steps) == [20]
    (line,) = said
    assert "probe.json is damaged" in line


def test_an_alarm_is_logged_once_and_stands_in_the_history_each_time(watched: Watched) -> None:
    """The second checkpoint's answers are turned round, so that it is worse than the first."""
    config, data = watched
    config = change(config, "alarm.metric=balanced_accuracy", "alarm.least=0.0")
    history = History.load(config, data, print)
    right = history.steps[10].probabilities["linear"] * 0
    right[range(len(right)), history.images.labels_N] = 1.0
    for step, p_NC, score in ((10, right, 1.0), (20, right[:, [1, 2, 0]], 0.0)):
        probed = history.steps[step]
        probed.tree["linear"]["macro"]["balanced_accuracy"] = score
        history.add_probe(
            step, probe_results.ProbeResult(probed.tree, {**probed.probabilities, "linear": p_NC})
        )
    (alarm,) = history.write()
    assert (alarm["step"], alarm["kind"], alarm["against_step"]) == (20, "falling", 10)
    assert history.write() == []
    assert len(run_folder.read_rows(config.run.url, run_folder.ALARMS)) == 1
    tree = json.loads((Path(config.run.url) / run_folder.WATCH).read_text())
    assert tree["alarms"] == [json.loads(json.dumps(alarm))]
    assert (tree["newest"], [row["step"] for row in tree["rows"]]) == (20, [10, 20])
    assert [row["finetuned"] for row in tree["rows"]] == [None, None]


def test_old_probes_are_made_again_and_those_of_deleted_checkpoints_shown_but_not_compared(
    watched: Watched,
) -> None:
    """Their features are of other pixels (`encoder_images.FEATURES_VERSION`)."""
    config, data = watched
    for step in (10, 20):
        write_as_old_version(config, step)
    newer = change(config, "probe.kinds=['linear', 'knn', 'attentive']")
    assert History.load(newer, data, print).steps == {}
    shutil.rmtree(checkpoint_url(config.run.url, 10))
    history = History.load(newer, data, print)
    assert sorted(history.steps) == [10]
    assert [checkpoint.point.value for checkpoint in history.compared()] == [None]
    assert History.load(change(newer, "probe.folds=3"), data, print).steps == {}


def test_an_alarm_by_the_attentive_probe_asks_for_it_and_old_probes_without_it_are_made_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe of a deleted checkpoint stays, but it is not compared."""
    monkeypatch.setattr(attentive_probe, "STEPS", (2, 4))
    config, data = watched
    for step in (10, 20):
        write_as_old_version(config, step)
    newer = change(config, "probe.kinds=['linear', 'knn', 'attentive']", "alarm.method=attentive")
    shutil.rmtree(checkpoint_url(config.run.url, 10))
    history = History.load(newer, data, print)
    assert sorted(history.steps) == [10]
    start = open_starting_weights(checkpoint_url(config.run.url, 20), newer.model)
    where = evaluation_url(config.run.url, 20)
    with ProgressDisplay(quiet=True) as show:
        made = probe_results.probe_checkpoint(
            start, data, newer.probe, newer.bootstrap, where, show, watched="attentive"
        )
    assert made.probabilities.keys() == {"linear", "knn", "attentive"}
    right_NC = right_predictions(made)
    history.add_probe(20, with_attentive(made, right_NC[::-1], 0.3))
    history.add_probe(0, with_attentive(made, right_NC, 1.0))
    rows = {row["step"]: row for row in history.tree()["rows"]}
    assert "attentive" not in rows[10]
    assert rows[10]["to_start"]["difference"] is None
    assert rows[20]["attentive"]["macro"]["aupr"] == 0.3
    assert rows[20]["to_start"]["worse"]
    (alarm,) = history.write()
    assert (alarm["step"], alarm["kind"], alarm["method"]) == (20, "worse_than_start", "attentive")
    assert "attentive probe, AUPR" in alarm["message"]
    page = (Path(watch_history.folder(config.run.url)) / "report.html").read_text()
    assert "Attentive probe" in page


def right_predictions(result: probe_results.ProbeResult) -> np.ndarray:
    """(N, C): every image has its own class."""
    classes = result.tree["classes"]
    return np.eye(len(classes))[[classes.index(row["label"]) for row in result_rows(result)]]


def with_attentive(
    result: probe_results.ProbeResult, p_NC: np.ndarray, aupr: float
) -> probe_results.ProbeResult:
    """The same probe, whose attentive probe has predicted otherwise."""
    scores = {**result.tree["attentive"]["macro"], "aupr": aupr}
    tree = {**result.tree, "attentive": {**result.tree["attentive"], "macro": scores}}
    return probe_results.ProbeResult(tree, {**result.probabilities, "attentive": p_NC})


def result_rows(result: probe_results.ProbeResult) -> list[dict[str, str]]:
    folder = Path(evaluation_url(result.tree["checkpoint"]["url"].split("/checkpoints")[0], 20))
    return list(csv.DictReader((folder / probe_results.PREDICTIONS).open()))


def write_as_old_version(config: WatchConfig, step: int) -> None:
    """A probe.json as versions without the attentive probe wrote it."""
    file = Path(evaluation_url(config.run.url, step)) / probe_results.PROBE
    tree = json.loads(file.read_text())
    del tree["probe"]["kinds"], tree["probe"]["attentive_images"], tree["features_version"]
    file.write_text(json.dumps(tree))


def test_an_alarm_by_a_probe_that_is_not_made_is_refused(watched: Watched) -> None:
    with pytest.raises(ConfigError, match=r"alarm\.method=attentive is not in probe\.kinds"):
        change(watched[0], "alarm.method=attentive")
