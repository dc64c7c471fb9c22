"""Reads Heyex XML exports. The B-scans are 8-bit images beside the file; each series and eye is a volume.

    HEDX/BODY/Patient            ID (from the software), PatientID (from the user)
      Study/Series               Laterality
        Image                    Laterality, ImageType/Type (OCT, LOCALIZER), ImageData/ExamURL

The export of a visit holds both eyes. XML with another root belongs to another program (layers of a
segmentation, settings) and is ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from retfound_dist.errors import DataError
from retfound_dist.files.image_files import read_file
from shards.images.preparation import decode
from shards.sources.devices.volume import FileWithoutScans, Volume, eye_of, pseudonym

_ROOT = "HEDX"


def read_heyex_xml(path: str) -> list[Volume]:
    """Reads the B-scans of every series, in the order of the file."""
    root = _read_root(path)
    folder = os.path.realpath(os.path.dirname(path))
    volumes = []
    for patient in root.iter("Patient"):
        number = patient.findtext("PatientID") or patient.findtext("ID")
        for series in patient.iter("Series"):
            for eye, names in _by_eye(series).items():
                slices = [decode(read_file(folder, name)) for name in names]
                companions = (*names, *_other_images(series))
                volumes.append(Volume(slices, pseudonym(number), eye, companions=companions))
    if not volumes:
        raise DataError("is a Heyex export without OCT images: export it again with its images")
    return volumes


def _read_root(path: str) -> ElementTree.Element:
    """Returns the export's root element; FileWithoutScans for any other XML."""
    with open(path, encoding="utf-8", errors="replace") as file:
        # Only the first element, because a segmentation may be large.
        for _, element in ElementTree.iterparse(file, events=("start",)):
            if element.tag != _ROOT:
                raise FileWithoutScans("is XML of another program, not a Heyex export")
            break
        file.seek(0)
        return ElementTree.parse(file).getroot()


def _by_eye(series: ElementTree.Element) -> dict[str | None, list[str]]:
    """Returns eye -> names of its B-scans. The laterality of an image counts before that of its series."""
    names_of_eye: dict[str | None, list[str]] = {}
    for image in series.iter("Image"):
        if image.findtext("ImageType/Type") == "OCT":
            # A series may hold both eyes.
            side = image.findtext("Laterality") or series.findtext("Laterality")
            names_of_eye.setdefault(eye_of(side), []).extend(_names(image))
    return names_of_eye


def _other_images(series: ElementTree.Element) -> Iterator[str]:
    """Yields names of the images that are not B-scans: the infrared view of the fundus."""
    for image in series.iter("Image"):
        if image.findtext("ImageType/Type") != "OCT":
            yield from _names(image)


def _names(image: ElementTree.Element) -> Iterator[str]:
    """Yields the file names of an image's URLs, without the folders of the exporting machine."""
    for url in image.iterfind("ImageData/ExamURL"):
        yield re.split(r"\\", url.text or "")[-1].removeprefix("file:///")
