"""Names or digests: what is chosen for a source, and what card and manifest say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.config.schema import Source
from shards.images.scan import Scan, SourceListing
from shards.pack import pack, plan_pack
from shards.people.name_policy import (
    ASKED,
    DIGEST,
    HARMLESS,
    LOOKS,
    NAMES,
    NUMBERS,
    PUBLISHED,
    choose_policy,
    policy_sentence,
)
from shards.people.pseudonyms import PseudonymizedRead
from shards.people.secret import Secret, find_secret
from tests.shards.pack_inputs import pack_config, write_image
from tests.shards.people_sets import cohort, fields_of


def test_names_that_stay_are_a_decision_that_the_card_states_with_counts(tmp_path: Path) -> None:
    cohort(tmp_path / "in", 3)
    pack(pack_config(tmp_path / "in", tmp_path / "named", source={"keys": "names"}))
    card = (tmp_path / "named" / "DATACARD.md").read_text()
    assert "because source.keys=names; images with names that look like people: 9 like a name" in card
    assert any("Kowalski" in tree["patient"] for tree in fields_of(tmp_path / "named").values())
    pack(pack_config(tmp_path / "in", tmp_path / "hidden"))
    card = (tmp_path / "hidden" / "DATACARD.md").read_text()
    assert "because names look like people: 9 like a name" in card
    assert str(tmp_path) not in card


def test_what_looks_harmless_keeps_its_names_unless_digests_are_asked_for(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / "in" / "AMD" / f"amd_{1047099 + 7919 * number}_1.png", number)
    pack(pack_config(tmp_path / "in", tmp_path / "auto"))
    assert all(key.startswith("AMD_amd_") for key in fields_of(tmp_path / "auto"))
    assert "none looks like a person" in (tmp_path / "auto" / "DATACARD.md").read_text()
    pack(pack_config(tmp_path / "in", tmp_path / "asked", source={"keys": "digest"}))
    assert all(key.startswith("i") and len(key) == 13 for key in fields_of(tmp_path / "asked"))


@pytest.mark.parametrize("folder", ["octdl", "kermany"])
def test_published_sets_keep_their_names_as_plain_folders_too(
    test_data: Path, tmp_path: Path, folder: str
) -> None:
    plan = plan_pack(pack_config(test_data / folder, tmp_path / "out"))
    assert {choice.keys for choice in plan.name_policies.values()} == {"names"}


def listing(*names: str) -> SourceListing:
    return SourceListing([Scan(key=name, origin=f"A/{name}.png", source="s", read=bytes) for name in names])


@pytest.mark.parametrize(
    ("kind", "keys", "names", "wanted"),
    [
        ("folder", "auto", ("1", "2"), (NAMES, HARMLESS)),
        ("folder", "auto", ("Smith_John_1", "2"), (DIGEST, LOOKS)),
        ("folder", "names", ("Smith_John_1",), (NAMES, ASKED)),
        ("csv", "digest", ("1",), (DIGEST, ASKED)),
        ("device", "auto", ("1",), (DIGEST, NUMBERS)),
        ("octdl", "auto", ("Smith_John_1",), (NAMES, PUBLISHED)),
    ],
)
def test_the_kind_of_a_source_what_is_asked_and_what_names_look_like_decide(
    kind: str, keys: str, names: tuple[str, ...], wanted: tuple[str, str]
) -> None:
    source = Source(kind=kind, keys=keys)
    packed, policy = choose_policy(source, listing(*names), find_secret)
    assert (policy.keys, policy.reason) == wanted
    assert all(isinstance(scan.read, PseudonymizedRead) == (policy.keys == DIGEST) for scan in packed.scans)
    assert bool(policy.secret) == (policy.keys == DIGEST)


def test_the_secret_is_not_asked_for_where_names_stay() -> None:
    def refuse() -> Secret:
        raise AssertionError("no secret is needed")

    assert choose_policy(Source(kind="folder"), listing("1"), refuse)[1].keys == NAMES


def test_the_sentence_of_the_manifest_counts_the_signs_and_names_the_secret() -> None:
    _, policy = choose_policy(
        Source(kind="folder"), listing("Smith_John_1", "Smith_John_2", "3"), find_secret
    )
    said = policy_sentence(policy.to_tree())
    assert "because names look like people: 2 like a name" in said
    assert f"fingerprint of their secret: {policy.secret}" in said
