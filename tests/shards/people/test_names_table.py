"""The table that leads from digests back to names: the owner's alone, one for a set, never in it."""

from __future__ import annotations

import stat
from collections import defaultdict
from pathlib import Path

import pytest

from retfound_dist.errors import ConfigError
from shards.append import append
from shards.images.scan import Scan
from shards.pack import pack
from shards.people.names_table import table_path, write_table
from shards.people.pseudonyms import pseudonymize
from shards.people.secret import find_secret
from shards.verify import inspect_set
from tests.shards.pack_inputs import pack_config
from tests.shards.people_sets import cohort, fields_of, rows_of


def test_what_is_appended_keeps_its_patients_and_has_its_rows_in_the_same_table(tmp_path: Path) -> None:
    cohort(tmp_path / "one", 4)
    cohort(tmp_path / "two", 4, first=2)
    first = pack_config(tmp_path / "one", tmp_path / "out")
    pack(first)
    before = fields_of(tmp_path / "out")
    append(pack_config(tmp_path / "two", tmp_path / "out", source={"name": "later"}))
    fields = fields_of(tmp_path / "out")
    assert before.items() <= fields.items()
    rows = rows_of(table_path(first))
    assert {row["source"] for row in rows} == {"one", "later"}
    assert {row["key"] for row in rows} >= fields.keys()
    known = defaultdict(set)
    for row in rows:
        known[row["patient"]].add(row["patient_digest"])
    assert len(known) == 6
    assert all(len(digests) == 1 for digests in known.values())
    assert not inspect_set(str(tmp_path / "out")).faults


def test_the_table_is_the_owner_s_alone_never_in_the_set_and_its_place_can_be_chosen(tmp_path: Path) -> None:
    cohort(tmp_path / "in", 2)
    place = tmp_path / "safe" / "names.csv"
    config = pack_config(tmp_path / "in", tmp_path / "out", out={"names_table": str(place)})
    pack(config)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert rows_of(str(place))[0]["patient"].startswith("Kowalski")
    assert [path.name for path in place.parent.iterdir()] == ["names.csv"]
    for wrong in (f"{tmp_path}/out/names.csv", "s3://bucket/names.csv", str(tmp_path)):
        with pytest.raises(ConfigError, match="names_table"):
            pack(pack_config(tmp_path / "in", tmp_path / "out2", out={"names_table": wrong}) if "/out/" not in wrong
                 else pack_config(tmp_path / "in", tmp_path / "out", out={"names_table": wrong}))  # fmt: skip
    (tmp_path / "other.csv").write_text("mine\n")
    with pytest.raises(ConfigError, match="is not a table of names"):
        pack(pack_config(tmp_path / "in", tmp_path / "out3", out={"names_table": f"{tmp_path}/other.csv"}))
    assert (tmp_path / "other.csv").read_text() == "mine\n"
    assert not (tmp_path / "out3").exists()


def test_without_a_choice_the_table_stands_in_the_users_data_folder_under_the_sets_name(
    tmp_path: Path,
) -> None:
    one, two = (pack_config(tmp_path / "in", tmp_path / name) for name in ("one", "two"))
    env = {"HOME": "/home/erika"}
    path = table_path(one, env)
    assert path.startswith("/home/erika/.local/share/retfound/names/oct-")
    assert path.endswith(".csv")
    assert table_path(two, env) != path, "each set has its own"
    assert table_path(one, {**env, "XDG_DATA_HOME": "/data"}).startswith("/data/retfound/names/oct-")


def test_a_set_with_names_for_keys_has_no_table(tmp_path: Path) -> None:
    config = pack_config(tmp_path / "in", tmp_path / "out", out={"names_table": f"{tmp_path}/names.csv"})
    assert write_table(config, [Scan(key="1", origin="1.png", source="s", read=bytes)]) == ""
    assert not (tmp_path / "names.csv").exists()


def test_a_table_is_written_again_without_the_rows_of_before(tmp_path: Path) -> None:
    config = pack_config(tmp_path / "in", tmp_path / "out", out={"names_table": f"{tmp_path}/names.csv"})
    scans = [Scan(key=n, origin=f"{n}.png", source="s", read=bytes, patient=f"Smith {n}") for n in "ab"]
    for count in (2, 1):
        write_table(config, pseudonymize(scans[:count], find_secret(), "s"))
        rows = rows_of(f"{tmp_path}/names.csv")
        assert [row["patient"] for row in rows] == ["Smith a", "Smith b"][:count]
        assert [row["path"] for row in rows] == ["a.png", "b.png"][:count]
