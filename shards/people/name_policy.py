"""Decides for each source whether its keys are names or digests, and records why.

    source.keys = "auto"      digests where names of files, folders, patients or labels tell of people
    source.keys = "digest"    always; "names": never

Published sets and the phantom keep their keys: whoever published them has given them. Device files always
have digests, for a patient's number is one that a hospital gave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from retfound_dist.config.schema import Source
from shards.images.scan import SourceListing
from shards.people.identifying_names import NameSigns, SignCounter, labels_of_people, name_parts
from shards.people.pseudonyms import notes_without_names, path_of, pseudonymize, source_name
from shards.people.secret import Secret

DIGEST, NAMES = "digest", "names"
JUDGED = frozenset(("folder", "csv"))
"""Kinds whose names are the user's own."""
DEVICES = frozenset(("device",))
ASKED, LOOKS, HARMLESS, PUBLISHED, NUMBERS = "asked", "looks", "harmless", "published", "numbers"
"""Why keys are what they are."""


@dataclass(frozen=True)
class NamePolicy:
    """What was decided for a source."""

    keys: str
    why: str
    signs: NameSigns
    labels: int = 0
    """Labels that look like people."""
    mark: str = ""
    """Of the secret that digests are keyed with."""

    def to_tree(self) -> dict[str, Any]:
        """How it stands in the manifest."""
        tree = {"keys": self.keys, "why": self.why, "signs": dict(self.signs.kinds), "labels": self.labels}
        return {**tree, "secret": self.mark} if self.mark else tree


def choose_policy(
    source: Source, listing: SourceListing, find_secret: Callable[[], Secret]
) -> tuple[SourceListing, NamePolicy]:
    """Returns the listing to pack, and the decision. `find_secret` is called only for digests."""
    # Not judged in published sets: whoever published them chose the names, so a digest would hide nothing.
    signs, labels = count_signs(listing) if source.kind in JUDGED else (NameSigns(len(listing.scans)), 0)
    keys, why = _chosen(source, signs.is_harmless and not labels)
    if keys == NAMES:
        return listing, NamePolicy(keys, why, signs, labels)
    secret = find_secret()
    name = source_name(listing.scans[0].source, source.name, secret)
    notes = notes_without_names(listing, nameless=source.kind in DEVICES)
    return SourceListing(pseudonymize(listing.scans, secret, name), notes), NamePolicy(
        keys, why, signs, labels, secret.mark
    )


def count_signs(listing: SourceListing) -> tuple[NameSigns, int]:
    """Counts the signs in the names of a listing, and its labels that look like people."""
    judged = SignCounter()
    for scan in listing.scans:
        path = path_of(scan)
        list_names = (
            [scan.volume] if scan.volume is not None and scan.volume not in path else []
        )  # a list's own
        judged.add([*list_names, *name_parts(path, scan.label)], scan.patient)
    return judged.signs(), len(labels_of_people({s.label for s in listing.scans if s.label is not None}))


def _chosen(source: Source, harmless: bool) -> tuple[str, str]:
    # What the user asks for comes first, for device files too.
    if source.keys != "auto":
        return source.keys, ASKED
    if source.kind in DEVICES:
        return DIGEST, NUMBERS
    if source.kind not in JUDGED:
        return NAMES, PUBLISHED
    return (NAMES, HARMLESS) if harmless else (DIGEST, LOOKS)


def policy_sentence(tree: Mapping[str, Any]) -> str:
    """The decision for a source in words, from its entry in the manifest."""
    counted = NameSigns(0, tree["signs"])
    labels = f"{tree['labels']:,} labels" if tree["labels"] else ""
    signs = "; ".join(part for part in (counted.line(), labels) if part)
    if tree["keys"] == DIGEST:
        reason = {
            ASKED: "source.keys=digest asks for it",
            NUMBERS: "device files hold numbers that hospitals give",
            LOOKS: f"images that look like people: {signs}",
        }[tree["why"]]
        secret = tree.get("secret", "not recorded")
        return f"keys, patients and volumes are keyed digests ({reason}); secret {secret}"
    if tree["why"] == PUBLISHED:
        return "keys are those of the set as it was published"
    if tree["why"] == HARMLESS:
        return "keys are the names of the files: none looks like a person, a date or an identifier"
    signs_in_words = f"of the images {signs}" if signs else "none was seen that looks like a person"
    return f"keys are the names of the files, because source.keys=names says so: {signs_in_words}"
