"""Decides for each source whether its keys are names or digests, and records the reason.

    source.keys = "auto"      digests if names of files, folders, patients or labels look like people
    source.keys = "digest"    always digests
    source.keys = "names"     never digests

With "auto", published sets and the phantom keep their names, which their publisher chose. Device files always
get digests, because they hold patient numbers of hospitals.
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
CHECKED_KINDS = frozenset(("folder", "csv"))
"""Kinds whose names come from the user, so that they may be names of people."""
DEVICE_KINDS = frozenset(("device",))
ASKED, LOOKS, HARMLESS, PUBLISHED, NUMBERS = "asked", "looks", "harmless", "published", "numbers"
"""Reasons of a decision, as the manifest writes them."""


@dataclass(frozen=True)
class NamePolicy:
    """The decision for a source."""

    keys: str
    """`names` or `digest`."""
    reason: str
    signs: NameSigns
    labels: int = 0
    """Number of labels that look like people."""
    secret: str = ""
    """Fingerprint of the secret behind the digests; empty for names."""

    def to_tree(self) -> dict[str, Any]:
        """Returns its entry in the manifest."""
        tree = {"keys": self.keys, "why": self.reason, "signs": dict(self.signs.kinds), "labels": self.labels}
        return {**tree, "secret": self.secret} if self.secret else tree


def choose_policy(
    source: Source, listing: SourceListing, find_secret: Callable[[], Secret]
) -> tuple[SourceListing, NamePolicy]:
    """Returns the listing to pack, and the decision. `find_secret` is called only for digests."""
    # Names in published sets are not checked: they are public, so a digest would hide nothing.
    is_checked = source.kind in CHECKED_KINDS
    signs, labels = count_signs(listing) if is_checked else (NameSigns(len(listing.scans)), 0)
    keys, reason = _choose_policy(source, signs.is_harmless and not labels)
    if keys == NAMES:
        return listing, NamePolicy(keys, reason, signs, labels)
    secret = find_secret()
    name = source_name(listing.scans[0].source, source.name, secret)
    notes = notes_without_names(listing, nameless=source.kind in DEVICE_KINDS)
    policy = NamePolicy(keys, reason, signs, labels, secret.fingerprint)
    return SourceListing(pseudonymize(listing.scans, secret, name), notes), policy


def count_signs(listing: SourceListing) -> tuple[NameSigns, int]:
    """Counts the signs in the names of a listing, and its labels that look like people."""
    counter = SignCounter()
    for scan in listing.scans:
        path = path_of(scan)
        # A volume that is not in the path comes from a list, and is checked like a name.
        listed_volume = [scan.volume] if scan.volume is not None and scan.volume not in path else []
        counter.add([*listed_volume, *name_parts(path, scan.label)], scan.patient)
    return counter.signs(), len(labels_of_people({s.label for s in listing.scans if s.label is not None}))


def _choose_policy(source: Source, harmless: bool) -> tuple[str, str]:
    """Returns how names of a source are kept, and why."""
    # The user's choice comes first, for device files too.
    if source.keys != "auto":
        return source.keys, ASKED
    if source.kind in DEVICE_KINDS:
        return DIGEST, NUMBERS
    if source.kind not in CHECKED_KINDS:
        return NAMES, PUBLISHED
    return (NAMES, HARMLESS) if harmless else (DIGEST, LOOKS)


def policy_sentence(tree: Mapping[str, Any]) -> str:
    """Returns the decision for a source in words, from its entry in the manifest."""
    counted = NameSigns(0, tree["signs"])
    labels = f"{tree['labels']:,} labels" if tree["labels"] else ""
    signs = "; ".join(part for part in (counted.in_words(), labels) if part)
    if tree["keys"] == DIGEST:
        reason = {
            ASKED: "because source.keys=digest",
            NUMBERS: "because device files hold patient numbers of hospitals",
            LOOKS: f"because names look like people: {signs}",
        }[tree["why"]]
        secret = tree.get("secret", "not recorded")
        return f"keys, patients and volumes are digests, {reason}; fingerprint of their secret: {secret}"
    if tree["why"] == PUBLISHED:
        return "keys are the published names of the images"
    if tree["why"] == HARMLESS:
        return "keys are the names of the files: none looks like a person, a date or an identifier"
    finding = f"images with names that look like people: {signs}" if signs else "no name looks like a person"
    return f"keys are the names of the files, because source.keys=names; {finding}"
