"""Features that are kept in a file: what is damaged is made again, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import EvalData, EvalModel
from retfound_dist.errors import DataError
from retfound_dist.evaluate.commands.embed import _read_part
from retfound_dist.evaluate.data.label_subset import with_label_share, with_label_shots
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.evaluate.probe.frozen_features import CACHE, _read, cached_features, npz_bytes, read_npz
from tests.evaluate.inputs import class_folders


def damaged() -> list[bytes]:
    rows = np.arange(300, dtype=np.float32).reshape(100, 3)
    data = npz_bytes({"identity": np.array("x"), "train": rows})
    at = data.index(rows.tobytes()[:64]) + 30
    return [
        data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        data[: len(data) // 2],
        b"",
        b"no archive",
        b"\x93NUMPY",
    ]


@pytest.mark.parametrize("kind", range(5))
def test_a_damaged_file_is_refused_by_name_and_no_cache(kind: int, tmp_path: Path) -> None:
    url = str(tmp_path / "features.npz")
    Path(url).write_bytes(damaged()[kind])
    with pytest.raises(DataError, match=r"features\.npz is not a complete \.npz file"):
        read_npz(url)
    assert _read(url, "x") == {}
    assert _read_part(url) is None


def test_a_whole_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    url = str(tmp_path / "features.npz")
    Path(url).write_bytes(npz_bytes({"identity": np.array("x"), "train": np.ones((2, 3), np.float32)}))
    assert _read(url, "x")["train"].tolist() == np.ones((2, 3)).tolist()
    assert _read(url, "another") == {}


def test_subsets_take_their_rows_of_the_whole_set_s_features_without_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_labelled_set(EvalData(path=str(class_folders(tmp_path / "set"))), 28)
    start = open_starting_weights("none", EvalModel(name="vit_demo_patch14", image_size=28))
    subsets = [
        with_label_shots(data, 2, 0, 0),
        with_label_shots(data, 2, 0, 1),
        with_label_share(data, 0.5, 0),
    ]
    parts = ("train", "test")
    alone = [
        cached_features(start, subset, parts, str(tmp_path / f"alone_{i}"))
        for i, subset in enumerate(subsets)
    ]
    whole = str(tmp_path / "whole")
    cached_features(start, subsets[0], parts, whole, of_whole_set=True)
    monkeypatch.setattr("retfound_dist.evaluate.probe.frozen_features.frozen_encoder", None)
    for subset, expected in zip(subsets, alone, strict=True):
        rows = cached_features(start, subset, parts, whole, of_whole_set=True)
        assert len(rows["train"]) == len(subset.parts["train"])
        for part in parts:
            np.testing.assert_allclose(rows[part], expected[part], atol=1e-5)
    # The file has the features of the whole set, as an evaluation with all labels reads them.
    assert len(cached_features(start, data, parts, whole)["train"]) == len(data.parts["train"])
    assert _read(f"{tmp_path}/alone_0/{CACHE}", "another") == {}
