"""Finds images that are slices of one volume, by the names of files and folders alone.

    slice_000.tif ... slice_029.tif          one volume, whatever folder they lie in
    P01_slice_001.png, P02_slice_001.png     a volume each
    AMD/V1/001.png ... AMD/V1/049.png        a folder below a class folder: kept together, and a volume where
                                             its images are numbered one after the other
    V001/..., V002/..., more than 30 folders these are no classes: the images of each are kept together

Ordinary class folders (`AMD/amd_001.jpg`, `NORMAL/NORMAL206.jpeg`) are none of these. The result is used only
where no patient is known; `split.unknown_patient=image` turns it off.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from retfound_dist.listing.folder_layout import part_of

MAX_CLASS_FOLDERS = 30
"""Most class folders. More folders at the top are volumes or patients."""
MAX_GROUP_IMAGES = 2048
"""Most images of a folder that may be one eye (the largest OCT volumes have some 1,000 slices)."""
_SLICE = re.compile(
    r"(?P<before>(?:.*[^a-z])?)(?:slices?|b[-_ ]?scans?|frames?|slc)[-_ .]*(?P<number>\d+)"
    r"(?:[-_ ]?of[-_ ]?\d+)?",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)")


@dataclass(frozen=True, slots=True)
class SlicePlace:
    """The volume, slice and group of an image, as far as names show them."""

    volume: str | None = None
    slice: int | None = None
    group: str | None = None
    """The folder that it is kept together with."""


@dataclass(slots=True)
class _FolderNames:
    """Counts of the names of a folder's images."""

    # Counters and no lists of names: a set of 1.6 million images would take gigabytes.

    images: int = 0
    numbered: int = 0
    """Images whose names are a text and a number, with the same text as the first such name."""
    sliced: int = 0
    """Images with a word for a slice in their names."""
    prefix: str | None = None
    lowest_number: int = 0
    highest_number: int = 0

    def add(self, stem: str) -> None:
        """Count an image. `stem`: its name without the ending."""
        match = _NUMBERED.fullmatch(stem)
        self.images += 1
        if match is None or match["before"] != (self.prefix if self.numbered else match["before"]):
            return
        number = int(match["number"])
        self.lowest_number = min(self.lowest_number, number) if self.numbered else number
        self.highest_number = max(self.highest_number, number)
        self.prefix = match["before"]
        self.numbered += 1

    @property
    def is_sequence(self) -> bool:
        """Whether all images are numbered one after the other, without large gaps."""
        all_numbered = 1 < self.images == self.numbered <= MAX_GROUP_IMAGES
        # Up to every other slice may be missing. Numbers of patients or of examinations leave larger gaps.
        return all_numbered and self.highest_number - self.lowest_number < 2 * self.images


class SliceSequences:
    """Volumes among all files below a folder. Construct it with all files, then call `place_of(file)`."""

    def __init__(self, files: Iterable[str]) -> None:
        self._slices: dict[str, int] = defaultdict(int)
        self._folders: dict[str, _FolderNames] = defaultdict(_FolderNames)
        self._images_below: dict[str, int] = defaultdict(int)
        tops = set()
        for file in files:
            folder, stem = _split_path(file)
            match = _SLICE.fullmatch(stem)
            if match:
                self._slices[_volume(folder, match)] += 1
                self._folders[folder].sliced += 1
            self._folders[folder].add(stem)
            self._count_above(folder)
            tops.add(_class_folder(folder))
        self._top_folders_are_groups = len(tops - {""}) > MAX_CLASS_FOLDERS
        self._groups: dict[str, str | None] = {}

    def place_of(self, file: str) -> SlicePlace:
        """The volume, slice and group of a file."""
        folder, stem = _split_path(file)
        if folder not in self._groups:
            group = self._group(folder)
            self._groups[folder] = None if group is not None and self._is_one_volume(group) else group
        group = self._groups[folder]
        match = _SLICE.fullmatch(stem)
        volume, number = None, None
        if match and self._slices[_volume(folder, match)] > 1:
            volume, number = _volume(folder, match), int(match["number"])
        elif self._group(folder) is not None and self._folders[folder].is_sequence:
            numbered = _NUMBERED.fullmatch(stem)
            volume, number = folder, int(numbered["number"]) if numbered else None
        return SlicePlace(volume, number, group)

    def _count_above(self, folder: str) -> None:
        while folder.strip("/"):  # an absolute path ends at "/"
            self._images_below[folder] += 1
            folder = os.path.dirname(folder)

    def _is_one_volume(self, group: str) -> bool:
        """Whether all images below a folder are slices of one volume with the folder's name."""
        # Then the volume alone keeps them together, and a split can be called "by volume", the safer kind.
        folder = self._folders.get(group)
        if folder is None or folder.images != self._images_below[group]:
            return False
        return self._slices.get(group) == folder.images or (folder.is_sequence and not folder.sliced)

    def _group(self, folder: str) -> str | None:
        """The highest folder below the class folder that is small enough for one eye."""
        top = _class_folder(folder)
        if not top:
            return None
        inner = folder[len(top) + 1 :].split("/") if len(folder) > len(top) else []
        candidates = [top] if self._top_folders_are_groups else []
        candidates += ["/".join([top, *inner[: depth + 1]]) for depth in range(len(inner))]
        return next(
            (group for group in candidates if 1 < self._images_below[group] <= MAX_GROUP_IMAGES), None
        )


def _split_path(file: str) -> tuple[str, str]:
    folder, name = os.path.split(file)
    return folder, os.path.splitext(name)[0]


# Files come folder by folder, so a small cache answers nearly every call of a set of millions.
@lru_cache(maxsize=4096)
def _class_folder(folder: str) -> str:
    """The class folder above a folder, with its part; empty where there is none."""
    parts = folder.split("/") if folder else []
    depth = 2 if any(part_of(part) for part in parts[:2]) else 1
    return "/".join(parts[:depth]) if len(parts) >= depth else ""


def _volume(folder: str, match: re.Match[str]) -> str:
    before = match["before"].rstrip("-_ .")
    return "/".join(part for part in (folder, before) if part) or "slices"
