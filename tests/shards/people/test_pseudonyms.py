"""Packs of images that are called after people: nothing of a name leaves, and what belonged together still does."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import Manifest
from shards.images.scan import Scan
from shards.pack import pack, plan_pack
from shards.people.names_table import table_path
from shards.people.pseudonyms import original_scan, pseudonymize
from shards.people.secret import find_secret
from shards.repair import repair
from tests.shards.pack_inputs import file_bytes, pack_config, write_image
from tests.shards.people_sets import cohort, fields_of, rows_of, write_list

PEOPLE = (
    "Smith_John_19500101",
    "García_José_19610312",
    "MUELLER_Erika_01021944",
    "Szczepański_Grzegorz",
    "张伟_1977-03-02",
)


TELLING = (
    "Smith",
    "John",
    "19500101",
    "García",
    "Garcia",
    "MUELLER",
    "Erika",
    "01021944",
    "Szczepa",
    "Grzegorz",
    "张伟",
    "1977",
)


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Two classes, five people with two eyes of three slices each, and what cannot be packed or is passed over."""
    root = tmp_path / "clinic"
    for seed, person in enumerate(PEOPLE):
        for eye in ("OD", "OS"):
            for slice_ in range(3):
                name = f"{person}_{eye}_slice_{slice_:03d}.png"
                write_image(
                    root / ("AMD" if seed % 2 else "NORMAL") / name, 100 * seed + 10 * (eye == "OS") + slice_
                )
    (root / "AMD" / "Smith_John_19500101_OD_broken.jpg").write_text("hi")
    (root / "AMD" / "Smith_John_notes.npy").write_text("x")
    (root / "Smith_John_list.csv").write_text("a,b\n1,2\n")
    return root


def telling_bytes(folder: Path) -> list[tuple[str, str]]:
    """(file, word) of every word that tells of a person, in all files as they are."""
    codings = ("utf-8", "latin-1", "utf-16-le")
    found = []
    for name, data in file_bytes(folder).items():
        for word in TELLING:
            escaped = json.dumps(word)[1:-1]
            spelt = {one.encode(coding, "ignore") for one in (word, escaped) for coding in codings}
            found += [(name, word) for one in spelt if len(one) > 3 and one in data]
    return found


def test_no_name_or_date_leaves_with_the_set_or_stands_in_what_is_printed(
    clinic: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        f'[source]\npath = "{clinic}"\n[out]\nurl = "{tmp_path}/out"\n[split]\nfractions = [0.6, 0.2, 0.2]\n'
    )
    assert main(["pack", str(config)]) == 0
    assert main(["verify", f"{tmp_path}/out"]) == 0
    said = capfd.readouterr()
    assert not telling_bytes(tmp_path / "out")
    assert not [word for word in TELLING if word in said.out + said.err]
    assert "left out 1 images" in said.out
    assert "like a name" in said.out
    table = table_path(pack_config(clinic, tmp_path / "out"))
    assert table in said.out


def test_a_damaged_shard_is_told_and_rebuilt_without_a_name(
    clinic: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[source]\npath = "{clinic}"\n[out]\nurl = "{tmp_path}/out"\n')
    assert main(["pack", str(config)]) == 0
    tar = next((tmp_path / "out").glob("*.tar"))
    whole = tar.read_bytes()
    tar.write_bytes(whole[:700] + b"\0" * 64 + whole[764:])
    assert main(["verify", f"{tmp_path}/out"]) == 1
    assert main(["verify", f"{tmp_path}/out", "--repair", str(config)]) == 0
    assert tar.read_bytes() == whole
    said = capfd.readouterr()
    assert not [word for word in TELLING if word in said.out + said.err]


def test_slices_eyes_and_volumes_stay_together_and_sort_as_before(clinic: Path, tmp_path: Path) -> None:
    config = pack_config(clinic, tmp_path / "out")
    pack(config)
    fields, by_volume = fields_of(tmp_path / "out"), defaultdict(list)
    for key in sorted(fields):
        by_volume[fields[key]["volume"]].append(fields[key]["slice"])
    assert len(by_volume) == 10
    assert all(slices == [0, 1, 2] for slices in by_volume.values())
    rows = rows_of(table_path(config))
    assert {row["key"] for row in rows} == {*fields, *(row["key"] for row in rows if "broken" in row["path"])}
    assert all(
        fields[row["key"]]["label"] == row["path"].split("/")[0] for row in rows if row["key"] in fields
    )


def parts_of_files(manifest: Manifest, table: str) -> dict[str, str]:
    parts = {key: tree["split"] for key, tree in fields_of(Path(manifest.url)).items()}
    return {row["path"]: parts[row["key"]] for row in rows_of(table)}


def test_the_split_is_the_same_with_names_with_digests_and_with_another_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = cohort(tmp_path / "in", 14)
    split = {"fractions": [0.6, 0.2, 0.2]}
    found = []
    for number, keys in enumerate(("auto", "digest")):
        monkeypatch.setenv("RETFOUND_SALT", f"another secret {number}")
        config = pack_config(tmp_path / "in", tmp_path / f"out{number}", split=split, source={"keys": keys})
        found.append(parts_of_files(pack(config), table_path(config)))
    plain = pack(pack_config(tmp_path / "in", tmp_path / "plain", split=split, source={"keys": "names"}))
    names = {
        f"A/{key.removeprefix('A_')}.png": tree["split"] for key, tree in fields_of(Path(plain.url)).items()
    }
    assert found[0] == found[1] == names
    assert len(set(names.values())) == 3
    assert all(len({names[file] for file in files}) == 1 for files in held.values())


def test_a_patient_has_one_digest_within_and_across_packs_and_another_with_another_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "a" / "A" / "1.png", 1)
    write_image(tmp_path / "b" / "B" / "2.png", 2)
    write_list(tmp_path / "a", {"Nguyen, Thi": ["A/1.png"]})
    write_list(tmp_path / "b", {"NGUYEN,  THI": ["B/2.png"]})

    def patient(folder: str, out: str) -> str:
        pack(pack_config(tmp_path / folder, tmp_path / out))
        (tree,) = fields_of(tmp_path / out).values()
        assert set(tree["patient"]) <= set("p0123456789abcdef")
        return str(tree["patient"])

    same = patient("a", "one")
    assert patient("b", "two") == same
    monkeypatch.setenv("RETFOUND_SALT", "a secret of somebody else")
    assert patient("a", "three") != same


def test_another_secret_is_told_and_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort(tmp_path / "in", 3)
    config = pack_config(tmp_path / "in", tmp_path / "out")
    pack(config)
    monkeypatch.setenv("RETFOUND_SALT", "a secret of somebody else")
    with pytest.raises(DataError, match="digests with another secret: set RETFOUND_SALT"):
        pack(config)
    with pytest.raises(DataError, match="digests with another secret: set RETFOUND_SALT"):
        repair(config, plan_pack(config), ["oct-000000.tar"])


def test_folders_of_people_are_neither_labels_nor_the_name_of_a_source(tmp_path: Path) -> None:
    root = tmp_path / "Smith_John_19500101"
    for number in range(3):
        write_image(root / "García_José" / f"{number}.png", number)
        write_image(root / "Nguyen_Anna" / f"{number}.png", 10 + number)
    pack(pack_config(root, tmp_path / "out"))
    trees = fields_of(tmp_path / "out").values()
    assert len({tree["label"] for tree in trees}) == 2
    assert all(tree["label"].startswith("n") and tree["source"].startswith("source") for tree in trees)
    assert not telling_bytes(tmp_path / "out")


def test_a_patient_in_two_parts_is_told_without_a_name(tmp_path: Path) -> None:
    lines = ["file,label,patient,volume,split"]
    for number, part in enumerate(("train", "val")):
        write_image(tmp_path / "in" / "A" / f"{number}.png", number)
        lines.append(f'A/{number}.png,A,"Nguyen, Thi",,{part}')
    (tmp_path / "in" / "manifest.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(
        DataError, match=r"patient p[0-9a-f]{12} .*--dry-run with source.keys=names"
    ) as caught:
        plan_pack(pack_config(tmp_path / "in", tmp_path / "out"))
    assert "Nguyen" not in str(caught.value)


def test_a_volume_that_a_list_calls_after_a_person_is_seen_too(tmp_path: Path) -> None:
    lines = ["file,label,volume"]
    for number in range(2):
        write_image(tmp_path / "in" / "A" / f"{number}.png", number)
        lines.append(f"A/{number}.png,A,Smith_John_OD")
    (tmp_path / "in" / "list.csv").write_text("\n".join(lines) + "\n")
    pack(pack_config(tmp_path / "in" / "list.csv", tmp_path / "out", source={"kind": "csv"}))
    assert not telling_bytes(tmp_path / "out")


@pytest.mark.parametrize("kind", [DataError, OSError, ValueError])
def test_whatever_a_reader_says_comes_without_the_file_s_name(kind: type[Exception]) -> None:
    path = "NORMAL/Szczepański_Grzegorz/eye 19500101.png"

    def read() -> bytes:
        raise kind(f"/data/{path}: the header of Szczepański, eye 19500101, is not a PNG's")

    scan = Scan(key="k", origin=path, source="s", read=read, label="NORMAL")
    (hidden,) = pseudonymize([scan], find_secret(), "s")
    with pytest.raises(DataError) as caught:
        hidden.read()
    assert not [word for word in ("Szczepa", "Grzegorz", "19500101") if word in str(caught.value)]
    assert kind is OSError or "is not a PNG's" in str(caught.value)
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)


def test_errors_of_a_hidden_scan_come_without_its_names(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "A" / "Smith_John_1.png", 1)
    write_image(tmp_path / "in" / "A" / "Smith_John_2.png", 2)
    plan = plan_pack(pack_config(tmp_path / "in", tmp_path / "out"))
    (tmp_path / "in" / "A" / "Smith_John_1.png").unlink()
    gone = next(scan for scan in plan.scans if original_scan(scan).origin.endswith("_1.png"))
    with pytest.raises(DataError) as caught:
        gone.read()
    assert "Smith" not in str(caught.value)
    assert caught.value.__cause__ is None
    os.makedirs(tmp_path / "in" / "A" / "Smith_John_1.png")
    with pytest.raises(DataError) as caught:
        gone.read()
    assert "Smith" not in str(caught.value)
