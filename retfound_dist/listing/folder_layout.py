"""What the folders above an image say: its part and its class, and where the set really begins.

    CLASS/...                      class folders
    train|val|test/CLASS/...       parts, then classes; their names as data sets spell them
    CLASS/train|val|test/*.jpg     classes, then parts
    Set/...                        any of these one or more levels down: `Set` is no class

What is read otherwise than it lies is said (`notes`); what can be read in two ways is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import FolderFiles, Tally
from retfound_dist.files.skipped_files import printable
from retfound_dist.formats.shard_set import SPLITS

NAMED = 10
"""Folders that one sentence names."""
_AROUND = re.compile(r"(images?|imgs?|sets?|data|split|part|folder|scans?|oct)+$")
Folders = tuple[str, ...]


@dataclass(frozen=True)
class FolderLayout:
    """How the folders of a set are read."""

    inside: str = ""
    """Path below the root of the folder that the set really begins in; empty: the root itself."""
    below_part: str = ""
    """Path in each part's folder below which the classes lie; nearly always empty."""
    class_first: bool = False
    """Whether a class's folder holds the parts."""
    notes: tuple[str, ...] = ()

    def own(self, path: str) -> str:
        """A path below the root as one below the folder that the set begins in."""
        return path[len(self.inside) + 1 :] if self.inside else path

    def part_and_class(self, folder: str) -> tuple[str | None, str | None]:
        """`train`, `val` or `test`, and the class, of an image by its folder below the root."""
        own = self.own(folder)
        folders = own.split("/") if own else []
        part = part_of(folders[0]) if folders else None
        if part:
            folders = folders[1:]
            deeper = self.below_part.split("/") if self.below_part else []
            folders = folders[len(deeper) :] if folders[: len(deeper)] == deeper else folders
        elif self.class_first and len(folders) > 1:
            part = part_of(folders[1])
        return part, printable(folders[0]) if folders else None


def part_of(name: str) -> str | None:
    """The part that a folder's name means, such as `Training`, `TEST`, `val_images`, `01-test set`."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    return SPLITS.get(plain) or SPLITS.get(_AROUND.sub("", plain))


def layout_of(found: FolderFiles, setting: str = "source.path", shown: str = "") -> FolderLayout:
    """How the images lie; DataError where their folders can be read in two ways.

    `setting`, `shown`: what names the folder in messages, and as what.
    """
    where = (shown or found.root).rstrip("/")
    held = [tuple(f.split("/")) if f else () for f, tally in found.folders.items() if tally.images]
    inside, held = _unwrapped(held)
    base = "/".join(inside)
    place = f"{where}/{printable(base)}" if base else where
    wrapper = printable(base)
    notes = [f"all images lie in {wrapper}: the set is read there, {wrapper} is no label"] if base else []
    tops = sorted({folders[0] for folders in held if folders})
    parts = [top for top in tops if part_of(top)]
    if parts:
        _check_parts(tops, parts, place)
        below = _below_parts([folders for folders in held if folders])
        notes += [f"in each part the classes are read from {printable(below)}"] if below else []
        return FolderLayout(base, below, notes=(*notes, *_of_parts(parts), *_loose(held)))
    class_first = _check_sets(held, tops, place, setting)
    if class_first:
        notes.append("each class folder holds parts: the part is read from the second folder")
    _check_lonely(held, tops, place, setting)
    return FolderLayout(base, class_first=class_first, notes=(*notes, *_doubts(held, tops), *_loose(held)))


def vanished(found: FolderFiles, layout: FolderLayout) -> list[str]:
    """Sentences on class folders in which no image was found, on empty ones, and on other empty folders."""
    groups: dict[str, Tally] = {}
    for folder, tally in found.folders.items():
        own = layout.own(folder) if f"{folder}/".startswith(f"{layout.inside}/") or not layout.inside else ""
        name = _class_folder(own.split("/")) if own else ""
        if name:
            whole = groups.setdefault(name, Tally())
            whole.images += tally.images
            whole.passed += tally.passed
            whole.example = whole.example or tally.example
    hollow = [folder for folder, tally in found.folders.items() if folder and tally == Tally()]
    hollow = [folder for folder in hollow if layout.own(folder) not in groups]
    without = {name: tally for name, tally in sorted(groups.items()) if not tally.images}
    empty = [name for name, tally in without.items() if not tally.passed]
    told = [
        f"{printable(name)} ({tally.passed:,} passed over, such as "
        f"{printable(os.path.basename(tally.example))})"
        for name, tally in without.items()
        if tally.passed
    ]
    lines = [f"folders without any image that is read: {_some(told)}"] if told else []
    lines += [f"empty class folders: {_some(list(map(printable, empty)))}"] if empty else []
    return lines + ([f"other empty folders: {_some(list(map(printable, sorted(hollow))))}"] if hollow else [])


def _class_folder(folders: Sequence[str]) -> str:
    """The folder that gives the class: the first, below a part's the second; empty for a part's own."""
    if not part_of(folders[0]):
        return folders[0]
    return "/".join(folders[:2]) if len(folders) > 1 else ""


def _unwrapped(held: list[Folders]) -> tuple[list[str], list[Folders]]:
    """The folders that wrap the whole set, outermost first, and the images' folders below them."""
    inside: list[str] = []
    while held and all(held) and len({folders[0] for folders in held}) == 1:
        top = held[0][0]
        if part_of(top) or any(len(folders) == 1 for folders in held):
            break
        inside.append(top)
        held = [folders[1:] for folders in held]
    return inside, held


def _below_parts(held: Iterable[Folders]) -> str:
    """What wraps the classes within every part (`images` of train/images/CNV)."""
    inner = [folders[1:] for folders in held if len(folders) > 1]
    inside, _ = _unwrapped(inner) if any(len(folders) > 1 for folders in inner) else ([], [])
    return "/".join(inside)


def _check_parts(tops: Sequence[str], parts: Sequence[str], place: str) -> None:
    others = [top for top in tops if top not in parts]
    if others:
        raise DataError(
            f"{place} holds the parts {_names(parts)} and, beside them, images in {_names(others)}: "
            "rename that to train, val or test, or move it out of the folder"
        )


def _check_sets(held: Iterable[Folders], tops: Sequence[str], place: str, setting: str) -> bool:
    """Whether class folders hold parts; DataError where folders of whole sets lie side by side."""
    kids: dict[str, list[Folders]] = {top: [] for top in tops}
    for folders in held:
        if folders:
            kids[folders[0]].append(folders[1:])
    divided = [top for top, below in kids.items() if below and all(b and part_of(b[0]) for b in below)]
    sets = [top for top in divided if any(len(below) > 1 for below in kids[top])]
    if sets:
        raise DataError(
            f"{place} is a level too high: {_names(sets)} {'hold' if len(sets) > 1 else 'holds'} parts with "
            f"classes: give {setting}={place}/{printable(sets[0])}"
            + (", and the others as sets of their own" if len(tops) > 1 else "")
        )
    return bool(divided) and len(divided) == len(tops)


def _check_lonely(held: Sequence[Folders], tops: Sequence[str], place: str, setting: str) -> None:
    """DataError where one folder of folders lies beside loose images: class or set?"""
    deeper = [folders for folders in held if folders]
    if len(tops) == 1 and len(deeper) < len(held) and all(len(folders) > 1 for folders in deeper):
        raise DataError(
            f"{place} holds images and one folder of folders, {_names(tops)}: give "
            f"{setting}={place}/{printable(tops[0])}, or move the loose images out"
        )


def _doubts(held: Sequence[Folders], tops: Sequence[str]) -> list[str]:
    if len(tops) == 1 and all(held):
        return [f"one class folder only: every image has the label {printable(tops[0])}"]
    kids: dict[str, set[str]] = {top: set() for top in tops}
    for folders in held:
        if len(folders) > 1:
            kids[folders[0]].add(folders[1])
    same = sorted(set.intersection(*kids.values())) if len(kids) > 1 else []
    if len(same) > 1:
        return [
            f"the classes {_names(tops)} all hold {_names(same)}: if those are the classes, give each of "
            "the upper folders as a set of its own"
        ]
    deep = [top for top, inner in kids.items() if len(inner) > 1]
    if len(deep) > 1:
        lower = f"{printable(deep[0])}/{printable(min(kids[deep[0]]))}"
        return [
            f"the labels are the upper folders ({_names(tops)}), not the folders in them such as {lower}: if "
            "those are the classes, give each of the upper folders as a set of its own"
        ]
    return []


def _of_parts(parts: Sequence[str]) -> list[str]:
    read = [f"{printable(name)} as {part_of(name)}" for name in parts if name.lower() not in SPLITS]
    return [f"folders read as parts: {', '.join(read)}"] if read else []


def _loose(held: Sequence[Folders]) -> list[str]:
    loose = any(not folders for folders in held) and any(held)
    return ["images lie beside the class folders, in none of them: they have no label"] if loose else []


def _names(names: Sequence[str]) -> str:
    return _some([printable(name) for name in names])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def notes_of(found: FolderFiles, layout: FolderLayout, follow: str) -> tuple[str, ...]:
    """All that is to be said of a listing; `follow`: how a user allows links that lead out."""
    return (*layout.notes, *vanished(found, layout), *found.passed.lines(follow))


def nothing_found(found: FolderFiles, follow: str, *, named: bool = True) -> str:
    """What an error says was passed over where no image was found; empty where nothing was."""
    lines = [line.removeprefix("passed over: ") for line in found.passed.lines(follow, named=named)]
    return f"; passed over: {'; '.join(lines)}" if lines else ""
