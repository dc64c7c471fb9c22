"""Replaces keys, patients, volumes and folders of scans by keyed digests. `read` keeps the original names.

    p6c1f0a5d2b7e_R_v0f3e5b7c9a1d_0012     patient, eye, volume, slice, as far as they are known
    i93b0c27f4e11                          an image of which nothing is known

A patient's digest follows from the secret and the patient alone: the same in every source and every pack.
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

LARGEST_SLICE = 99_999
"""A larger number is no place in a volume: it may be a date or a patient's number."""
GONE = "..."
_PSEUDONYM = re.compile(r"p[0-9a-f]{12}")
_EXTENSION = re.compile(r"\.[a-z0-9]{2,5}")
_TOKENS = re.compile(r" \(v[0-9a-f]{8}[^)]*\)")
"""How notes of device files name files: by digests that nobody's secret has keyed."""
_WORD = re.compile(r"[^\W_]{3,}")


# Named and not a closure: the scan is pickled for the workers, and names_table.py asks for what it holds.
class PseudonymizedRead:
    """A scan's `read` that keeps the original scan. Its errors never show the original names."""

    __slots__ = ("scan",)

    def __init__(self, scan: Scan) -> None:
        self.scan = scan

    def __call__(self) -> bytes | Pixels:
        """The image, as the scan's own `read` gives it; errors come without its names."""
        content: bytes | Pixels = _without_names(self.scan, self.scan.read)
        return content


class PseudonymizedExtra:
    """The same for `extra`."""

    __slots__ = ("scan",)

    def __init__(self, scan: Scan) -> None:
        self.scan = scan

    def __call__(self) -> Mapping[str, Any]:
        """The scan's further fields."""
        fields: Mapping[str, Any] = _without_names(self.scan, self.scan.extra or dict)
        return fields


def original_scan(scan: Scan) -> Scan:
    """A scan with the names it came with."""
    return scan.read.scan if isinstance(scan.read, PseudonymizedRead) else scan


def path_of(scan: Scan) -> str:
    """Path of a scan's file below its source's folder, also where messages show a digest."""
    read = original_scan(scan).read
    file = read.args[1] if isinstance(read, partial) and len(read.args) > 1 else getattr(read, "file", None)
    return file if isinstance(file, str) else original_scan(scan).origin


def pseudonymize(scans: Sequence[Scan], secret: Secret, source: str) -> list[Scan]:
    """The scans of one source with digests for names. `source`: the source's name in the set."""
    people = labels_of_people({scan.label for scan in scans if scan.label is not None})
    digest = lru_cache(maxsize=65_536)(secret.digest)
    hidden = [_hidden(scan, digest, source, people) for scan in scans]
    # Two files of one patient, eye, volume and slice would have one key.
    count = Counter(scan.key for scan in hidden)
    if len(count) == len(hidden):
        return hidden
    return [
        scan
        if count[scan.key] == 1
        else replace(scan, key=f"{scan.key}-{secret.digest('file', path_of(scan), 16)}")
        for scan in hidden
    ]


def source_name(name: str, configured_name: str, secret: Secret) -> str:
    """What a source is called: as the user says, or as its folder, unless that looks like a person."""
    return (
        f"source{secret.digest('source', name, 6)}"
        if not configured_name and is_name_of_person(name)
        else name
    )


def patient_digest(patient: str, digest: Callable[..., str]) -> str:
    """`p` and 12 digits; of spellings that count as one patient (listing.image_lists) one digest.

    Device files give a digest of their number already: a list that names the same number has the same result.
    """
    if _PSEUDONYM.fullmatch(patient):
        known = patient
    else:
        plain = unicodedata.normalize("NFKC", "".join(patient.split())).casefold()
        plain = plain.lstrip("0") or "0" if plain.isdigit() else plain
        known = f"p{hashlib.sha256(plain.encode(errors='surrogateescape')).hexdigest()[:12]}"
    return f"p{digest('patient', known)}"


def notes_without_names(listing: SourceListing, *, nameless: bool) -> tuple[str, ...]:
    """The notes of a listing without names of files and folders; notes that may hold one are left out.

    `nameless`: the notes name files by digests of their paths alone (shards.sources.devices.device).
    """
    if nameless:
        return tuple(_TOKENS.sub("", note) for note in listing.notes)
    folders = {os.path.dirname(path_of(scan)) for scan in listing.scans}
    words = {word.casefold() for folder in folders for word in _WORD.findall(folder) if _is_telling(word)}
    cut = [_cut_note(note) for note in listing.notes]
    safe_notes = [note for note in cut if note and not _tells(note, words)]
    left = len(cut) - len(safe_notes)
    more = f"{left:,} notes on files and folders are left out, for they name them: --dry-run tells them"
    return (*safe_notes, more.replace("notes on", "note on", 1)) if left else tuple(safe_notes)


def without_names(text: str, scan: Scan) -> str:
    """An error's text without the path of a scan's file, parts of it, and words of it that may be names."""
    path, spelt = path_of(scan), original_scan(scan)
    parts = {path, spelt.origin, os.path.basename(path), os.path.splitext(os.path.basename(path))[0]}
    parts |= set(path.split("/")) | {spelt.patient or "", spelt.volume or ""}
    # Longest first: to cut a folder's name first would leave the rest of a path behind.
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, GONE) if len(part) > 2 and part != spelt.label else text
    words = {word.casefold() for word in _WORD.findall(path) if _is_telling(word)}
    return _WORD.sub(lambda found: GONE if found[0].casefold() in words else found[0], text)


def _hidden(scan: Scan, digest: Callable[..., str], source: str, people: frozenset[str]) -> Scan:
    path = path_of(scan)
    patient = None if scan.patient is None else patient_digest(scan.patient, digest)
    volume = None if scan.volume is None else f"v{digest('volume', scan.volume)}"
    place = scan.slice if scan.slice is not None and scan.slice <= LARGEST_SLICE else None
    last = f"i{digest('file', path)}" if place is None or volume is None else f"{place:04d}"
    # In this order: sorted keys still put the slices of a volume in a row.
    key = "_".join(part for part in (patient, scan.eye if patient or volume else None, volume, last) if part)
    return replace(
        scan,
        key=key,
        origin=f"{key}{_extension(path)}",
        source=source,
        read=PseudonymizedRead(scan),
        extra=PseudonymizedExtra(scan) if scan.extra else None,
        label=f"n{digest('label', scan.label)}"
        if scan.label in people and scan.label is not None
        else scan.label,
        patient=patient,
        volume=volume,
        slice=place,
        group=None if scan.group is None else f"g{digest('folder', scan.group)}",
    )


def with_source_prefix(scan: Scan) -> Scan:
    """A scan with its source's name before its key. The original scan's key gets the same prefix."""
    key = safe_key(f"{scan.source}-{scan.key}")
    return (
        replace(scan, key=key, read=PseudonymizedRead(with_source_prefix(scan.read.scan)))
        if isinstance(scan.read, PseudonymizedRead)
        else replace(scan, key=key)
    )


def _extension(path: str) -> str:
    end = os.path.splitext(path)[1].lower()
    return end if _EXTENSION.fullmatch(end) else ""


def _without_names(scan: Scan, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except DataError as error:
        # `from None`: a traceback prints the cause, and the cause names the file.
        raise DataError(without_names(str(error), scan)) from None
    except OSError as error:
        # Not the error's text: it ends with the path.
        raise DataError(f"cannot be read ({error.strerror or type(error).__name__})") from None
    except Exception as error:  # as in `make_sample`: a hostile file makes libraries raise anything
        first_line = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise DataError(f"cannot be read ({without_names(first_line, scan)})") from None


def _is_telling(word: str) -> bool:
    """Whether a word of a path may identify a person, so that it must be removed from messages."""
    return any(letter.isdigit() for letter in word) or is_person(word) or holds_person(word.capitalize())


def _cut_note(note: str) -> str:
    """A note up to where it names files, as the notes of listings are written."""
    head, colon, rest = note.partition(": ")
    if head == "passed over" and colon:
        return f"passed over: {re.split(', such as |: | [(]', rest, maxsplit=1)[0]}"
    if "<-" in rest or not colon:
        return re.split(" such as ", note, maxsplit=1)[0]
    return head


def _tells(note: str, words: Iterable[str]) -> bool:
    note_words = {word.casefold() for word in _WORD.findall(note)}
    return bool(note_words & set(words)) or any(
        is_person(word) for word in _WORD.findall(note) if plain_letters(word) != word
    )
