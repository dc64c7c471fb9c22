"""Replaces keys, patients, volumes and folders of scans by keyed digests. `read` keeps the original names.

    p6c1f0a5d2b7e_R_v0f3e5b7c9a1d_0012     patient, eye, volume, slice, as far as they are known
    i93b0c27f4e11                          an image of which nothing is known

A patient's digest depends only on the secret and the patient, so it is the same in every source and pack.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from retfound_dist.errors import DataError
from shards.images.scan import Pixels, Scan, SourceListing, safe_key
from shards.people.identifying_names import is_name_of_person, labels_of_people
from shards.people.person_names import holds_person, is_person, plain_letters
from shards.people.secret import Secret

Digest = Callable[[str, str], str]
"""Kind and text -> 12 hex digits, as `Secret.digest`."""
LARGEST_SLICE = 99_999
"""A larger number is not the place of a slice: it may be a date or a patient's number."""
REMOVED = "..."
_PSEUDONYM = re.compile(r"p[0-9a-f]{12}")
_EXTENSION = re.compile(r"\.[a-z0-9]{2,5}")
_TOKENS = re.compile(r" \(v[0-9a-f]{8}[^)]*\)")
"""Names of files in the notes on device files: digests without a secret."""
_WORD = re.compile(r"[^\W_]{3,}")


# A class and not a closure, because the scan is pickled for the workers and names_table.py reads it.
class PseudonymizedRead:
    """A scan's `read` that keeps the original scan. Its errors never show the original names."""

    __slots__ = ("scan",)

    def __init__(self, scan: Scan) -> None:
        self.scan = scan

    def __call__(self) -> bytes | Pixels:
        """Returns the image from the scan's own `read`. Its errors show no names."""
        content: bytes | Pixels = _read_without_names(self.scan, self.scan.read)
        return content


class PseudonymizedExtra:
    """The same for `extra_fields`."""

    __slots__ = ("scan",)

    def __init__(self, scan: Scan) -> None:
        self.scan = scan

    def __call__(self) -> Mapping[str, Any]:
        """Returns the scan's further fields."""
        fields: Mapping[str, Any] = _read_without_names(self.scan, self.scan.extra_fields or dict)
        return fields


def original_scan(scan: Scan) -> Scan:
    """Returns a scan with its original names."""
    return scan.read.scan if isinstance(scan.read, PseudonymizedRead) else scan


def path_of(scan: Scan) -> str:
    """Returns the path of a scan's file below its source's folder, also if messages show a digest."""
    read = original_scan(scan).read
    file = read.args[1] if isinstance(read, partial) and len(read.args) > 1 else getattr(read, "file", None)
    return file if isinstance(file, str) else original_scan(scan).origin


def pseudonymize(scans: Sequence[Scan], secret: Secret, source: str) -> list[Scan]:
    """Returns the scans of one source with digests for names. `source`: the source's name in the set."""
    personal_labels = labels_of_people({scan.label for scan in scans if scan.label is not None})
    digest = lru_cache(maxsize=65_536)(secret.digest)
    pseudonymized = [_pseudonymize_scan(scan, digest, source, personal_labels) for scan in scans]
    # Two files of one patient, eye, volume and slice would have the same key.
    count = Counter(scan.key for scan in pseudonymized)
    if len(count) == len(pseudonymized):
        return pseudonymized
    return [
        scan
        if count[scan.key] == 1
        else replace(scan, key=f"{scan.key}-{secret.digest('file', path_of(scan), 16)}")
        for scan in pseudonymized
    ]


def source_name(name: str, configured_name: str, secret: Secret) -> str:
    """Returns a source's name: the user's, else its folder's, or a digest if that looks like a person."""
    return (
        f"source{secret.digest('source', name, 6)}"
        if not configured_name and is_name_of_person(name)
        else name
    )


def patient_digest(patient: str, digest: Digest) -> str:
    """Returns `p` and 12 hex digits, the same for all spellings of one patient (listing.image_lists).

    Device files already give a digest of a patient's number. A list with that number gives the same result.
    """
    pseudonym = patient
    if not _PSEUDONYM.fullmatch(patient):
        plain = unicodedata.normalize("NFKC", "".join(patient.split())).casefold()
        plain = plain.lstrip("0") or "0" if plain.isdigit() else plain
        pseudonym = f"p{hashlib.sha256(plain.encode(errors='surrogateescape')).hexdigest()[:12]}"
    return f"p{digest('patient', pseudonym)}"


def notes_without_names(listing: SourceListing, *, nameless: bool) -> tuple[str, ...]:
    """Returns the notes of a listing without names of files and folders; leaves out notes that may hold one.

    `nameless`: the notes name files only by digests of their paths (shards.sources.devices.device).
    """
    if nameless:
        return tuple(_TOKENS.sub("", note) for note in listing.notes)
    folders = {os.path.dirname(path_of(scan)) for scan in listing.scans}
    words = {word.casefold() for folder in folders for word in _WORD.findall(folder) if _may_identify(word)}
    short_notes = [_shorten_note(note) for note in listing.notes]
    safe_notes = [note for note in short_notes if note and not _holds_words(note, words)]
    removed = len(short_notes) - len(safe_notes)
    notes = f"{removed:,} note" if removed == 1 else f"{removed:,} notes"
    hidden_note = f"not shown: {notes} with names of files or folders"
    return (*safe_notes, hidden_note) if removed else tuple(safe_notes)


def without_names(text: str, scan: Scan) -> str:
    """Returns an error's text without the path of a scan's file and words of it that may be names."""
    path, original = path_of(scan), original_scan(scan)
    parts = {path, original.origin, os.path.basename(path), os.path.splitext(os.path.basename(path))[0]}
    parts |= set(path.split("/")) | {original.patient or "", original.volume or ""}
    # Longest first, because removing a folder's name first would leave the rest of a path.
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, REMOVED) if len(part) > 2 and part != original.label else text
    words = {word.casefold() for word in _WORD.findall(path) if _may_identify(word)}
    return _WORD.sub(lambda match: REMOVED if match[0].casefold() in words else match[0], text)


def _pseudonymize_scan(scan: Scan, digest: Digest, source: str, personal_labels: frozenset[str]) -> Scan:
    """Returns a scan with digests for names.

    `source`: the source's name in the set. `personal_labels`: labels that look like people. Other labels
    stay as they are.
    """
    path = path_of(scan)
    patient = None if scan.patient is None else patient_digest(scan.patient, digest)
    volume = None if scan.volume is None else f"v{digest('volume', scan.volume)}"
    # LARGEST_SLICE: a larger number may identify a person.
    slice_number = scan.slice if scan.slice is not None and scan.slice <= LARGEST_SLICE else None
    has_slice = volume is not None and slice_number is not None
    image = f"{slice_number:04d}" if has_slice else f"i{digest('file', path)}"
    # In this order, so that sorted keys put the slices of a volume in order.
    key = "_".join(part for part in (patient, scan.eye if patient or volume else None, volume, image) if part)
    return replace(
        scan,
        key=key,
        origin=f"{key}{_extension(path)}",
        source=source,
        read=PseudonymizedRead(scan),
        extra_fields=PseudonymizedExtra(scan) if scan.extra_fields else None,
        label=f"n{digest('label', scan.label)}"
        if scan.label in personal_labels and scan.label is not None
        else scan.label,
        patient=patient,
        volume=volume,
        slice=slice_number,
        group=None if scan.group is None else f"g{digest('folder', scan.group)}",
    )


def with_source_prefix(scan: Scan) -> Scan:
    """Returns a scan with its source's name before its key. The original scan's key gets the same prefix."""
    key = safe_key(f"{scan.source}-{scan.key}")
    return (
        replace(scan, key=key, read=PseudonymizedRead(with_source_prefix(scan.read.scan)))
        if isinstance(scan.read, PseudonymizedRead)
        else replace(scan, key=key)
    )


def _extension(path: str) -> str:
    end = os.path.splitext(path)[1].lower()
    return end if _EXTENSION.fullmatch(end) else ""


def _read_without_names(scan: Scan, read: Callable[[], Any]) -> Any:
    """Returns what `read` returns. Any error becomes a DataError without the original names."""
    try:
        return read()
    except DataError as error:
        # `from None`, because a traceback would print the cause, which names the file.
        raise DataError(without_names(str(error), scan)) from None
    except OSError as error:
        # Without the error's text, which ends with the path.
        raise DataError(f"cannot be read ({error.strerror or type(error).__name__})") from None
    except Exception as error:  # libraries raise any error on a hostile file
        first_line = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise DataError(f"cannot be read ({without_names(first_line, scan)})") from None


def _may_identify(word: str) -> bool:
    """Whether a word of a path may identify a person, so that messages must not show it."""
    return any(letter.isdigit() for letter in word) or is_person(word) or holds_person(word.capitalize())


def _shorten_note(note: str) -> str:
    """Returns the beginning of a note, up to the first name of a file."""
    head, colon, rest = note.partition(": ")
    if head == "passed over" and colon:
        return f"passed over: {re.split(', such as |: | [(]', rest, maxsplit=1)[0]}"
    if "<-" in rest or not colon:
        return re.split(" such as ", note, maxsplit=1)[0]
    return head


def _holds_words(note: str, words: Iterable[str]) -> bool:
    """Returns whether a note holds one of the words or the name of a person."""
    note_words = {word.casefold() for word in _WORD.findall(note)}
    return bool(note_words & set(words)) or any(
        is_person(word) for word in _WORD.findall(note) if plain_letters(word) != word
    )
