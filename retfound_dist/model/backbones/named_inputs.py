"""What a project says of its images where only the file's name tells the project.

Sources: VisionFM (ABILab-CUHK/VisionFM, README and `utils.py`, `get_stats`: files such as
`VFM_OCT_weights.pth`, in iBOT's layout, a mean and spread for each modality; its own trainings save the
modality among their arguments). RETFound's DINOv2 line (rmaphoh/RETFound, README and `models_vit.py`: files
such as `RETFound_dinov2_meh.pth`, in the layout of DINOv2's trainer, used at 224 pixels). RETFound-Green
(justinengelmann/RETFound_Green, README: `retfoundgreen_statedict.pth`, timm's DINOv2 with registers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from retfound_dist.model.backbones.backbone import InputFacts

_VISIONFM_FILE = re.compile(r"VFM_([A-Za-z]+)", re.IGNORECASE)
_RETFOUND_DINOV2_FILE = re.compile(r"RETFound_dinov2", re.IGNORECASE)
_RETFOUND_GREEN_FILE = re.compile(r"RETFound[_-]?Green", re.IGNORECASE)
RETFOUND_DINOV2_SIZE = 224
RETFOUND_GREEN = InputFacts(392, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
VISIONFM = {
    "MRI": ((0.17368862,) * 3, (0.16198656,) * 3),
    "Fundus": (
        (0.423737496137619, 0.2609460651874542, 0.128403902053833),
        (0.29482534527778625, 0.20167365670204163, 0.13668020069599152),
    ),
    "UBM": ((0.096110865,) * 3, (0.20977867,) * 3),
    "Ultrasound": ((0.05989236, 0.05978666, 0.056694973), (0.154277, 0.15504874, 0.14464583)),
    "External": ((0.4936253, 0.36324808, 0.25956994), (0.32001, 0.27109432, 0.21991591)),
    "FFA": ((0.2020487, 0.20205145, 0.20201068), (0.17406046, 0.17404206, 0.17401208)),
    "SlitLamp": ((0.5556667, 0.40288574, 0.38857886), (0.26516676, 0.23311588, 0.23903583)),
    "OCT": ((0.21091926, 0.21091926, 0.21091919), (0.17598894, 0.17598891, 0.17598893)),
}
"""Mean and spread of VisionFM's images, by modality."""


def inputs_by_name(file_name: str, tree: Any) -> tuple[InputFacts, str]:
    """What is known of a file's images, and a note for the user; nothing and no note for most files."""
    if modality := _visionfm_modality(file_name, tree):
        mean, std = VISIONFM[modality]
        return InputFacts(
            mean=mean, std=std
        ), f"read as VisionFM, with its normalisation of {modality} images"
    if _RETFOUND_DINOV2_FILE.search(file_name):
        size = RETFOUND_DINOV2_SIZE
        return InputFacts(image_size=size), f"read as RETFound's DINOv2 line, which uses {size} pixels"
    if _RETFOUND_GREEN_FILE.search(file_name):
        return RETFOUND_GREEN, "read as RETFound-Green, with its size and normalisation"
    return InputFacts(), ""


def _visionfm_modality(file_name: str, tree: Any) -> str:
    """The modality of a VisionFM file by its name, or by the arguments that its training saved."""
    match = _VISIONFM_FILE.search(file_name)
    arguments = tree.get("args") if isinstance(tree, Mapping) else None
    names = (match[1] if match else "", str(getattr(arguments, "modality", "")))
    names_by_lower = {name.lower(): name for name in VISIONFM}
    return next((names_by_lower[name.lower()] for name in names if name.lower() in names_by_lower), "")
