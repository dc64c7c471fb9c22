"""Reads the part and the class of an image from its folders, and detects the folder where the set begins.

    CLASS/...                      class folders
    train|val|test/CLASS/...       parts, then classes; their names as data sets spell them
    CLASS/train|val|test/*.jpg     classes, then parts
    Set/...                        any of these one or more levels down: `Set` is not a class

Everything that is not read as plain class folders is reported in `notes`. A layout with two possible meanings
is an error.
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

MAX_NAMED = 10
"""Most folders that are named in one sentence."""
# Words that data sets add to the name of a part: `train_images`, `TestSet`, `OCT train data`.
_PART_AFFIXES = re.compile(r"(images?|imgs?|sets?|data|split|part|folder|scans?|oct)+$")
Folders = tuple[str, ...]


@dataclass(frozen=True)
class FolderLayout:
    """The meaning of the folders of a set."""

    set_folder: str = ""
    """Path from the root to the folder where the set begins; empty: the root itself."""
    below_parts: str = ""
    """Path from each part's folder to its class folders; usually empty."""
    class_first: bool = False
    """Whether the parts are inside the class folders."""
    notes: tuple[str, ...] = ()

    def relative_path(self, path: str) -> str:
        """A path relative to the root, made relative to the folder where the set begins."""
        return path[len(self.set_folder) + 1 :] if self.set_folder else path

    def part_and_class(self, folder: str) -> tuple[str | None, str | None]:
        """(`train`, `val` or `test`; class) of the images in a folder, which is relative to the root."""
        relative = self.relative_path(folder)
        folders = relative.split("/") if relative else []
        part = part_of(folders[0]) if folders else None
        if part:
            folders = folders[1:]
            deeper = self.below_parts.split("/") if self.below_parts else []
            folders = folders[len(deeper) :] if folders[: len(deeper)] == deeper else folders
        elif self.class_first and len(folders) > 1:
            part = part_of(folders[1])
        return part, printable(folders[0]) if folders else None


def part_of(name: str) -> str | None:
    """The part that a folder's name means (`Training`, `TEST`, `val_images`, `01-test set`), or None."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    return SPLITS.get(plain) or SPLITS.get(_PART_AFFIXES.sub("", plain))


def layout_of(files: FolderFiles, setting: str = "source.path", shown_path: str = "") -> FolderLayout:
    """The layout of a folder of images; DataError where its folders have two possible meanings.

    `setting`, `shown_path`: the config key and the path of the folder in messages.
    """
    root_path = (shown_path or files.root).rstrip("/")
    image_folders = [tuple(f.split("/")) if f else () for f, tally in files.folders.items() if tally.images]
    wrappers, image_folders = _strip_wrappers(image_folders)
    base = "/".join(wrappers)
    set_path = f"{root_path}/{printable(base)}" if base else root_path
    wrapper = printable(base)
    notes = (
        [f"all images are in {wrapper}: the set is read there, and {wrapper} is not a label"] if base else []
    )
    top_folders = sorted({folders[0] for folders in image_folders if folders})
    parts = [top for top in top_folders if part_of(top)]
    if parts:
        _check_parts(top_folders, parts, set_path)
        below_parts = _below_parts([folders for folders in image_folders if folders])
        notes += [f"in each part the classes are read from {printable(below_parts)}"] if below_parts else []
        return FolderLayout(
            base, below_parts, notes=(*notes, *_part_notes(parts), *_loose_image_notes(image_folders))
        )
    class_first = _check_nested_sets(image_folders, top_folders, set_path, setting)
    if class_first:
        notes.append("each class folder has parts: the part is read from the second folder")
    _check_loose_images(image_folders, top_folders, set_path, setting)
    notes += [*_ambiguity_notes(image_folders, top_folders), *_loose_image_notes(image_folders)]
    return FolderLayout(base, class_first=class_first, notes=tuple(notes))


def folders_without_images(files: FolderFiles, layout: FolderLayout) -> list[str]:
    """Sentences on class folders without an image, on empty class folders, and on other empty folders."""
    # Otherwise a class whose files all have a format that is not read would be missing silently.
    groups: dict[str, FolderCounts] = {}
    for folder, tally in files.folders.items():
        is_inside = not layout.set_folder or f"{folder}/".startswith(f"{layout.set_folder}/")
        relative = layout.relative_path(folder) if is_inside else ""
        name = _class_folder(relative.split("/")) if relative else ""
        if name:
            class_tally = groups.setdefault(name, FolderCounts())
            class_tally.images += tally.images
            class_tally.skipped += tally.skipped
            class_tally.example = class_tally.example or tally.example
    other_empty = [folder for folder, tally in files.folders.items() if folder and tally == FolderCounts()]
    other_empty = [folder for folder in other_empty if layout.relative_path(folder) not in groups]
    empty_groups = {name: tally for name, tally in sorted(groups.items()) if not tally.images}
    empty_classes = [name for name, tally in empty_groups.items() if not tally.skipped]
    unread_classes = [
        f"{printable(name)} (skipped {tally.skipped:,}, such as {printable(os.path.basename(tally.example))})"
        for name, tally in empty_groups.items()
        if tally.skipped
    ]
    lines = [f"folders without a readable image: {_some_names(unread_classes)}"] if unread_classes else []
    lines += (
        [f"empty class folders: {_some_names(list(map(printable, empty_classes)))}"] if empty_classes else []
    )
    if other_empty:
        lines.append(f"other empty folders: {_some_names(list(map(printable, sorted(other_empty))))}")
    return lines


def _class_folder(folders: Sequence[str]) -> str:
    """The folder that names the class: the first one, or the second one in a part; empty for the part
    itself."""
    if not part_of(folders[0]):
        return folders[0]
    return "/".join(folders[:2]) if len(folders) > 1 else ""


def _strip_wrappers(image_folders: list[Folders]) -> tuple[list[str], list[Folders]]:
    """The folders that wrap the whole set, outermost first, and the images' folders relative to them."""
    wrappers: list[str] = []
    while image_folders and all(image_folders) and len({folders[0] for folders in image_folders}) == 1:
        top = image_folders[0][0]
        # A single folder with images in it is the only class of the set, not a wrapper around the set.
        if part_of(top) or any(len(folders) == 1 for folders in image_folders):
            break
        wrappers.append(top)
        image_folders = [folders[1:] for folders in image_folders]
    return wrappers, image_folders


def _below_parts(image_folders: Iterable[Folders]) -> str:
    """The folders that wrap the classes in every part (`images` in train/images/CNV)."""
    inner = [folders[1:] for folders in image_folders if len(folders) > 1]
    inside, _ = _strip_wrappers(inner) if any(len(folders) > 1 for folders in inner) else ([], [])
    return "/".join(inside)


def _check_parts(top_folders: Sequence[str], parts: Sequence[str], set_path: str) -> None:
    others = [top for top in top_folders if top not in parts]
    if others:
        raise DataError(
            f"{set_path} has the parts {_printable_names(parts)} and also images in "
            f"{_printable_names(others)}: rename it to train, val or test, or move it to another place"
        )


def _check_nested_sets(
    image_folders: Iterable[Folders], top_folders: Sequence[str], set_path: str, setting: str
) -> bool:
    """Whether class folders have parts; DataError where the folders are several whole sets."""
    children: dict[str, list[Folders]] = {top: [] for top in top_folders}
    for folders in image_folders:
        if folders:
            children[folders[0]].append(folders[1:])
    divided = [top for top, below in children.items() if below and all(b and part_of(b[0]) for b in below)]
    # CLASS/train/*.jpg ends at the part. A folder below the part is a class, so the top folder is a whole
    # set.
    sets = [top for top in divided if any(len(below) > 1 for below in children[top])]
    if sets:
        raise DataError(
            f"{set_path} is one level too high: {_printable_names(sets)} "
            f"{'have' if len(sets) > 1 else 'has'} parts with classes: "
            f"give {setting}={set_path}/{printable(sets[0])}"
            + (", and the other folders as separate sets" if len(top_folders) > 1 else "")
        )
    return bool(divided) and len(divided) == len(top_folders)


def _check_loose_images(
    image_folders: Sequence[Folders], top_folders: Sequence[str], set_path: str, setting: str
) -> None:
    """DataError for loose images beside one folder with subfolders, which may be a class or a whole set."""
    deeper = [folders for folders in image_folders if folders]
    if (
        len(top_folders) == 1
        and len(deeper) < len(image_folders)
        and all(len(folders) > 1 for folders in deeper)
    ):
        raise DataError(
            f"{set_path} has images and one folder with subfolders, {_printable_names(top_folders)}: give "
            f"{setting}={set_path}/{printable(top_folders[0])}, or move the loose images to another place"
        )


def _ambiguity_notes(image_folders: Sequence[Folders], top_folders: Sequence[str]) -> list[str]:
    """Notes where the classes may be other folders than the top ones; empty where the layout is clear.

    `image_folders`: for each image the folders above it, from the top.
    """
    # Notes, not errors: folders of patients or of devices below a class are valid and look the same.
    if len(top_folders) == 1 and all(image_folders):
        return [f"there is only one class folder: every image has the label {printable(top_folders[0])}"]
    children: dict[str, set[str]] = {top: set() for top in top_folders}
    for folders in image_folders:
        if len(folders) > 1:
            children[folders[0]].add(folders[1])
    same = sorted(set.intersection(*children.values())) if len(children) > 1 else []
    if len(same) > 1:
        return [
            f"the classes {_printable_names(top_folders)} all have folders {_printable_names(same)}: "
            "if those are the classes, give each of the top folders as a separate set"
        ]
    deep = [top for top, inner in children.items() if len(inner) > 1]
    if len(deep) > 1:
        lower = f"{printable(deep[0])}/{printable(min(children[deep[0]]))}"
        return [
            f"the labels are the top folders ({_printable_names(top_folders)}), not the folders in them "
            f"such as {lower}: if those are the classes, give each of the top folders as a separate set"
        ]
    return []


def _part_notes(parts: Sequence[str]) -> list[str]:
    read = [f"{printable(name)} as {part_of(name)}" for name in parts if name.lower() not in SPLITS]
    return [f"folders read as parts: {', '.join(read)}"] if read else []


def _loose_image_notes(image_folders: Sequence[Folders]) -> list[str]:
    loose = any(not folders for folders in image_folders) and any(image_folders)
    return ["images that are in no class folder have no label"] if loose else []


def _printable_names(names: Sequence[str]) -> str:
    return _some_names([printable(name) for name in names])


def _some_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def layout_notes(files: FolderFiles, layout: FolderLayout, links_setting: str) -> tuple[str, ...]:
    """All notes on a folder of images; `links_setting`: the setting that allows links out of the folder."""
    return (*layout.notes, *folders_without_images(files, layout), *files.skipped.lines(links_setting))


def passed_files_clause(files: FolderFiles, links_setting: str, *, named: bool = True) -> str:
    """A clause on the skipped files, for the error that no image was found; empty where none was skipped."""
    lines = [line.removeprefix("passed over: ") for line in files.skipped.lines(links_setting, named=named)]
    return f"; passed over: {'; '.join(lines)}" if lines else ""
