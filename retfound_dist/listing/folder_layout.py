"""Reads the part and the class of an image from its folders, and finds the folder where the set begins.

    CLASS/...                      class folders
    train|val|test/CLASS/...       parts, then classes; their names as data sets spell them
    CLASS/train|val|test/*.jpg     classes, then parts
    Set/...                        any of these one or more levels down: `Set` is no class

Whatever is not read as plain class folders is reported in `notes`. A layout with two possible meanings is
refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import FolderCounts, FolderFiles
from retfound_dist.files.skipped_files import printable
from retfound_dist.formats.shard_set import SPLITS

NAMED = 10
"""Most folders that one sentence names."""
# Words that data sets add to the name of a part: `train_images`, `TestSet`, `OCT train data`.
_AROUND = re.compile(r"(images?|imgs?|sets?|data|split|part|folder|scans?|oct)+$")
Folders = tuple[str, ...]


@dataclass(frozen=True)
class FolderLayout:
    """How to read the folders of a set."""

    inside: str = ""
    """Path from the root to the folder where the set begins; empty: the root itself."""
    below_part: str = ""
    """Path from each part's folder to its class folders; nearly always empty."""
    class_first: bool = False
    """Whether a class's folder holds the parts."""
    notes: tuple[str, ...] = ()

    def own(self, path: str) -> str:
        """A path relative to the root, made relative to the folder where the set begins."""
        return path[len(self.inside) + 1 :] if self.inside else path

    def part_and_class(self, folder: str) -> tuple[str | None, str | None]:
        """(`train`, `val` or `test`; class) of the images in a folder, which is relative to the root."""
        relative = self.own(folder)
        folders = relative.split("/") if relative else []
        part = part_of(folders[0]) if folders else None
        if part:
            folders = folders[1:]
            deeper = self.below_part.split("/") if self.below_part else []
            folders = folders[len(deeper) :] if folders[: len(deeper)] == deeper else folders
        elif self.class_first and len(folders) > 1:
            part = part_of(folders[1])
        return part, printable(folders[0]) if folders else None


def part_of(name: str) -> str | None:
    """The part that a folder's name means (`Training`, `TEST`, `val_images`, `01-test set`); None: no
    part."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    return SPLITS.get(plain) or SPLITS.get(_AROUND.sub("", plain))


def layout_of(files: FolderFiles, setting: str = "source.path", shown: str = "") -> FolderLayout:
    """The layout of a folder of images; DataError where its folders have two possible meanings.

    `setting`, `shown`: the config key of the folder and its path, as messages name them.
    """
    where = (shown or files.root).rstrip("/")
    image_folders = [tuple(f.split("/")) if f else () for f, tally in files.folders.items() if tally.images]
    inside, image_folders = _unwrapped(image_folders)
    base = "/".join(inside)
    place = f"{where}/{printable(base)}" if base else where
    wrapper = printable(base)
    notes = [f"all images lie in {wrapper}: the set is read there, {wrapper} is no label"] if base else []
    tops = sorted({folders[0] for folders in image_folders if folders})
    parts = [top for top in tops if part_of(top)]
    if parts:
        _check_parts(tops, parts, place)
        below = _below_parts([folders for folders in image_folders if folders])
        notes += [f"in each part the classes are read from {printable(below)}"] if below else []
        return FolderLayout(base, below, notes=(*notes, *_of_parts(parts), *_loose(image_folders)))
    class_first = _check_sets(image_folders, tops, place, setting)
    if class_first:
        notes.append("each class folder holds parts: the part is read from the second folder")
    _check_lonely(image_folders, tops, place, setting)
    notes += [*_doubts(image_folders, tops), *_loose(image_folders)]
    return FolderLayout(base, class_first=class_first, notes=tuple(notes))


def vanished(files: FolderFiles, layout: FolderLayout) -> list[str]:
    """Sentences on class folders without an image, on empty class folders, and on other empty folders."""
    # A class whose files are all of a format that is not read would otherwise be missing without a word.
    groups: dict[str, FolderCounts] = {}
    for folder, tally in files.folders.items():
        is_inside = not layout.inside or f"{folder}/".startswith(f"{layout.inside}/")
        relative = layout.own(folder) if is_inside else ""
        name = _class_folder(relative.split("/")) if relative else ""
        if name:
            whole = groups.setdefault(name, FolderCounts())
            whole.images += tally.images
            whole.passed += tally.passed
            whole.example = whole.example or tally.example
    other_empty = [folder for folder, tally in files.folders.items() if folder and tally == FolderCounts()]
    other_empty = [folder for folder in other_empty if layout.own(folder) not in groups]
    without = {name: tally for name, tally in sorted(groups.items()) if not tally.images}
    empty = [name for name, tally in without.items() if not tally.passed]
    unread = [
        f"{printable(name)} ({tally.passed:,} passed over, such as "
        f"{printable(os.path.basename(tally.example))})"
        for name, tally in without.items()
        if tally.passed
    ]
    lines = [f"folders without any image that is read: {_some(unread)}"] if unread else []
    lines += [f"empty class folders: {_some(list(map(printable, empty)))}"] if empty else []
    if other_empty:
        lines.append(f"other empty folders: {_some(list(map(printable, sorted(other_empty))))}")
    return lines


def _class_folder(folders: Sequence[str]) -> str:
    """The folder that names the class: the first one, or the second one in a part; empty for the part
    itself."""
    if not part_of(folders[0]):
        return folders[0]
    return "/".join(folders[:2]) if len(folders) > 1 else ""


def _unwrapped(image_folders: list[Folders]) -> tuple[list[str], list[Folders]]:
    """The folders that wrap the whole set, outermost first, and the images' folders relative to them."""
    inside: list[str] = []
    while image_folders and all(image_folders) and len({folders[0] for folders in image_folders}) == 1:
        top = image_folders[0][0]
        # A single folder that holds images itself is the one class of the set, not a wrapper around it.
        if part_of(top) or any(len(folders) == 1 for folders in image_folders):
            break
        inside.append(top)
        image_folders = [folders[1:] for folders in image_folders]
    return inside, image_folders


def _below_parts(image_folders: Iterable[Folders]) -> str:
    """The folders that wrap the classes in every part (`images` in train/images/CNV)."""
    inner = [folders[1:] for folders in image_folders if len(folders) > 1]
    inside, _ = _unwrapped(inner) if any(len(folders) > 1 for folders in inner) else ([], [])
    return "/".join(inside)


def _check_parts(tops: Sequence[str], parts: Sequence[str], place: str) -> None:
    others = [top for top in tops if top not in parts]
    if others:
        raise DataError(
            f"{place} holds the parts {_names(parts)} and, beside them, images in {_names(others)}: "
            "rename that to train, val or test, or move it out of the folder"
        )


def _check_sets(image_folders: Iterable[Folders], tops: Sequence[str], place: str, setting: str) -> bool:
    """Whether class folders hold parts; DataError where folders of whole sets lie side by side."""
    children: dict[str, list[Folders]] = {top: [] for top in tops}
    for folders in image_folders:
        if folders:
            children[folders[0]].append(folders[1:])
    divided = [top for top, below in children.items() if below and all(b and part_of(b[0]) for b in below)]
    # CLASS/train/*.jpg ends at the part. A folder below the part is a class, so the top folder is a whole
    # set.
    sets = [top for top in divided if any(len(below) > 1 for below in children[top])]
    if sets:
        raise DataError(
            f"{place} is a level too high: {_names(sets)} {'hold' if len(sets) > 1 else 'holds'} parts with "
            f"classes: give {setting}={place}/{printable(sets[0])}"
            + (", and the others as sets of their own" if len(tops) > 1 else "")
        )
    return bool(divided) and len(divided) == len(tops)


def _check_lonely(image_folders: Sequence[Folders], tops: Sequence[str], place: str, setting: str) -> None:
    """DataError where one folder of folders lies beside loose images: it may be a class or a whole set."""
    deeper = [folders for folders in image_folders if folders]
    if len(tops) == 1 and len(deeper) < len(image_folders) and all(len(folders) > 1 for folders in deeper):
        raise DataError(
            f"{place} holds images and one folder of folders, {_names(tops)}: give "
            f"{setting}={place}/{printable(tops[0])}, or move the loose images out"
        )


def _doubts(image_folders: Sequence[Folders], tops: Sequence[str]) -> list[str]:
    # Notes and no errors: folders of patients or of devices below a class are legal, and look the same.
    if len(tops) == 1 and all(image_folders):
        return [f"one class folder only: every image has the label {printable(tops[0])}"]
    children: dict[str, set[str]] = {top: set() for top in tops}
    for folders in image_folders:
        if len(folders) > 1:
            children[folders[0]].add(folders[1])
    same = sorted(set.intersection(*children.values())) if len(children) > 1 else []
    if len(same) > 1:
        return [
            f"the classes {_names(tops)} all hold {_names(same)}: if those are the classes, give each of "
            "the upper folders as a set of its own"
        ]
    deep = [top for top, inner in children.items() if len(inner) > 1]
    if len(deep) > 1:
        lower = f"{printable(deep[0])}/{printable(min(children[deep[0]]))}"
        return [
            f"the labels are the upper folders ({_names(tops)}), not the folders in them such as {lower}: if "
            "those are the classes, give each of the upper folders as a set of its own"
        ]
    return []


def _of_parts(parts: Sequence[str]) -> list[str]:
    read = [f"{printable(name)} as {part_of(name)}" for name in parts if name.lower() not in SPLITS]
    return [f"folders read as parts: {', '.join(read)}"] if read else []


def _loose(image_folders: Sequence[Folders]) -> list[str]:
    loose = any(not folders for folders in image_folders) and any(image_folders)
    return ["images lie beside the class folders, in none of them: they have no label"] if loose else []


def _names(names: Sequence[str]) -> str:
    return _some([printable(name) for name in names])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def notes_of(files: FolderFiles, layout: FolderLayout, follow: str) -> tuple[str, ...]:
    """All notes on a folder of images; `follow`: the setting that allows links out of the folder."""
    return (*layout.notes, *vanished(files, layout), *files.passed.lines(follow))


def nothing_found(files: FolderFiles, follow: str, *, named: bool = True) -> str:
    """A clause on the files that were passed over, for the error that no image was found; empty: none
    were."""
    lines = [line.removeprefix("passed over: ") for line in files.passed.lines(follow, named=named)]
    return f"; passed over: {'; '.join(lines)}" if lines else ""
