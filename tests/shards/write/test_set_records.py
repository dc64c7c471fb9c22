"""Damaged files of shard sets, their digests put right: one line that names file and place, or a named fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.cli import main
from retfound_dist.errors import DataError, ManifestError
from retfound_dist.formats.shard_set import read_index, read_manifest
from retfound_dist.images.image_digests import from_hex, set_digests
from shards.append import append, read_base
from shards.pack import pack
from shards.verify import verify
from tests.shards.damaged_sets import Change, changed, config_for, drop, put, put_right
from tests.shards.pack_inputs import file_bytes, pack_config, write_image

INDEX = "oct-000001.idx"


WHOLE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda good: b"", "it is empty"),
    "a list": (lambda good: b"[]", "line 1: it is a list"),
    "null": (lambda good: b"null", "line 1: it is null"),
    "an empty object": (lambda good: b"{}", "line 1: format is missing"),
    "cut": (lambda good: good[:-30], "line 1: it is cut off"),
    "deep": (lambda good: b'{"a":' + b"[" * 100_000, "line 1: it is nested too deep"),
    "zero bytes": (lambda good: b"\0" * 300, "it contains only zero bytes"),
}


RECORD: dict[str, tuple[Callable[[bytes], bytes], str]] = (
    WHOLE
    | {
        name: (lambda good, change=change: changed(good, change), why)  # type: ignore[misc]
        for name, (change, why) in {
            "no statistics": (drop("statistics"), "statistics is missing"),
            "no digests": (drop("digests"), "digests is missing"),
            "shard is a list": (put("shard", []), "shard is a list"),
            "shard has no split": (lambda tree: tree["shard"].pop("split"), "shard.split is missing"),
            "next is a text": (put("next", "7"), "next is '7'"),
            "next is negative": (put("next", -1), "next is -1"),
            "a skip is null": (put("skipped", [None]), r"skipped\[0\] is null"),
            "a short histogram": (
                lambda tree: tree["statistics"].update(histogram=[1]),
                "statistics.histogram is a list",
            ),
            "error is an object": (
                lambda tree: tree["statistics"].update(error={}),
                "statistics.error is an obj",
            ),
            "a digest too few": (
                lambda tree: tree["digests"].pop(),
                r"digests has \d+ entries for a shard of \d+ sam",
            ),
            "a digest too long": (
                lambda tree: tree["digests"].append(tree["digests"].pop() + "0"),
                "is not 16 hex digits",
            ),
            "a digest no hex": (lambda tree: tree["digests"].append("x" * len(tree["digests"].pop())), "hex"),
            "looks cut": (
                lambda tree: tree.update(looks=tree["looks"][:-2]),
                r"looks is not 64 hex digits a sample",
            ),
            "looks no hex": (put("looks", "xy"), "looks is not 64 hex digits"),
            "suspects is a list": (put("suspects", []), "suspects is a list"),
            "a suspicion is a number": (put("suspects", {"one": {"mask": 3}}), "suspects.one.mask is 3"),
            "source_files is null": (put("source_files", [None]), r"source_files\[0\] is null"),
            "a source file too few": (
                lambda tree: tree["source_files"].pop(),
                r"source_files has \d+ entries",
            ),
            "a sample is short": (lambda tree: tree["samples"][0].pop(), r"samples\[0\]\[6\] is missing"),
            "a sample too few": (lambda tree: tree["samples"].pop(), r"samples has \d+ entries"),
        }.items()
    }
)


@pytest.mark.parametrize("kind", RECORD)
def test_a_damaged_record_ends_an_append_in_one_line_that_names_it(
    kind: str, packed: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, why = RECORD[kind]
    put_right(out, INDEX, spoil((out / INDEX).read_bytes()))
    before = file_bytes(out)
    with pytest.raises(
        DataError, match=rf"^{out}/{INDEX} is damaged: .*{why}.*; .*pack the set again$"
    ) as caught:
        read_base(str(out))
    assert "\n" not in str(caught.value)
    words = ["source.kind=folder", f"source.path={packed}/one", f"out.url={out}", "--append"]
    assert main(["pack", "configs/demo/pack.toml", *words]) == 2
    assert f"{INDEX} is damaged" in capsys.readouterr().err
    assert file_bytes(out) == before


@pytest.mark.parametrize("kind", RECORD)
def test_a_damaged_record_of_an_unfinished_pack_is_named_and_its_shard_packed_again(
    kind: str, packed: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = file_bytes(out)
    (out / "manifest.json").rename(out / "packing.json")
    spoil, _ = RECORD[kind]
    (out / INDEX).write_bytes(spoil(good[INDEX]))
    pack(config_for(packed, out))
    assert file_bytes(out) == good
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"retfound: {out}/{INDEX} is damaged: ")
    again = sum(name.endswith(".idx") for name in good) - 1
    assert line.endswith(f"; packing again from this shard on: {again} shards")


MANIFEST: dict[str, tuple[Change, str]] = {
    "no label counts": (lambda tree: tree["sources"]["one"].pop("labels"), "sources.one.labels is missing"),
    "a source is a list": (put("sources", {"one": []}), "sources.one is a list"),
    "patients is a text": (
        lambda tree: tree["sources"]["one"].update(patients="many"),
        "sources.one.patients is 'many'",
    ),
    "an unknown reason": (
        lambda tree: tree["sources"]["one"]["names"].update(why="mood"),
        "sources.one.names.why is 'mood'",
    ),
    "near_duplicates is a list": (put("near_duplicates", []), "near_duplicates is a list"),
    "a pair is short": (
        lambda tree: tree["near_duplicates"].update(first=[["a", "b"]]),
        r"near_duplicates.first\[0\]\[2\] is missing",
    ),
    "history is an object": (put("history", {}), "history is an object"),
    "framed is short": (put("framed", {"one": [3]}), r"framed.one\[1\] is missing"),
    "a suspicion without an example": (
        put("suspects", {"one": {"mask": {"images": 1, "of": 2, "first": []}}}),
        "suspects.one.mask.first is a list",
    ),
    "burnt_in is a number": (put("burnt_in", {"one": [7]}), r"burnt_in\.one"),
    "a class is a number": (put("classes", [7]), r"classes\[0\] is 7"),
}


@pytest.mark.parametrize("kind", MANIFEST)
def test_a_manifest_that_an_append_cannot_build_upon_is_one_line_and_nothing_is_changed(
    kind: str, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, why = MANIFEST[kind]
    (out / "manifest.json").write_bytes(changed((out / "manifest.json").read_bytes(), change))
    write_image(tmp_path / "two" / "C" / "1.jpg", 5000)
    before = file_bytes(out)
    words = ["source.kind=folder", f"source.path={tmp_path}/two", f"out.url={out}", "--append"]
    assert main(["pack", "configs/demo/pack.toml", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"retfound: {out}/manifest.json is damaged: line 1: ")
    assert why.replace("\\", "") in line
    assert file_bytes(out) == before


def test_an_append_goes_on_with_a_manifest_of_a_later_minor_version(out: Path, tmp_path: Path) -> None:
    def later(tree: dict[str, Any]) -> None:
        tree["mood"] = 1
        tree["sources"]["one"]["mood"] = tree["image"]["mood"] = None
        tree["skipped"] = [{"key": "k", "origin": "o", "reason": "r", "by": "a later version"}]

    (out / "manifest.json").write_bytes(changed((out / "manifest.json").read_bytes(), later))
    write_image(tmp_path / "two" / "C" / "1.jpg", 5000)
    assert append(pack_config(tmp_path / "two", out)).samples == 19
    assert "mood" in json.loads((out / "manifest.json").read_text())["sources"]["one"]


@pytest.mark.parametrize(
    ("change", "why"),
    [(put("digests", ["0" * 16]), "do not have one digest for each"), (put("source_files", ["0" * 18]), "do not have one digest for each|16 hex"),
     (lambda tree: tree["digests"].append("-" + tree["digests"].pop()[1:]), "hex"),
     (lambda tree: tree["samples"][0].append(tree["samples"][0].pop() + "0" * 48), "is not 16 hex digits"),
     (put("digests", {"a": 1}), "digests is an object"), (drop("samples"), "samples is missing")],
)  # fmt: skip
def test_digests_of_a_set_that_are_damaged_are_one_line(change: Change, why: str, out: Path) -> None:
    put_right(out, INDEX, changed((out / INDEX).read_bytes(), change))
    with pytest.raises(
        ManifestError, match=rf"^{out}/{INDEX} is damaged: .*({why}).*pack the set again"
    ) as caught:
        set_digests(read_manifest(str(out)))
    assert "\n" not in str(caught.value)


def test_hex_digits_are_the_numbers_they_spell() -> None:
    texts = ["", "ab", "0" * 16, "f" * 16, "0123456789abcdef"]
    assert from_hex(texts).tolist() == [int(text or "0", 16) for text in texts]
    assert from_hex([]).tolist() == []


FIELDS: dict[str, tuple[bytes, str]] = {
    "a list": (b"[]", "it is a list"),
    "null": (b"null", "it is null"),
    "blank": (b"", "it is empty"),
    "cut": (b'{"height":', "a value is missing"),
    "deep": (b"[" * 60, "it is cut off"),
    "no height": (b'{"width":64}', "height is missing"),
    "a height in words": (b'{"height":"48","width":64}', "height is '48'"),
    "a part that is a list": (b'{"height":48,"width":64,"split":[]}', "split is a list"),
    "a part that is an object": (b'{"height":48,"width":64,"split":{}}', "split is an object"),
    "a label that is a list": (b'{"height":48,"width":64,"label":[]}', "label"),
}


@pytest.mark.parametrize("kind", FIELDS)
def test_damaged_fields_of_a_sample_are_a_fault_that_names_it(
    kind: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields, why = FIELDS[kind]
    shard = next(shard for shard in read_manifest(str(out)).shards if shard.index.name == INDEX)
    entry = read_index(str(out), shard)[0]
    tar = bytearray((out / shard.name).read_bytes())
    place = slice(entry.json_offset, entry.json_offset + entry.json_bytes)
    tar[place] = fields + b" " * (entry.json_bytes - len(fields))
    put_right(out, shard.name, bytes(tar))
    (fault,) = verify(str(out), 1)
    assert fault.startswith(f"{shard.name}: {entry.key}.json is damaged: ")
    assert why in fault
    assert main(["verify", str(out)]) == 1
    assert f"{entry.key}.json is damaged: " in capsys.readouterr().out
