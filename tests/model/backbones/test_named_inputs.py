from __future__ import annotations

import argparse

import pytest

from retfound_dist.model.backbones.backbone import InputFacts
from retfound_dist.model.backbones.named_inputs import RETFOUND_GREEN, VISIONFM, inputs_by_name


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("VFM_OCT_weights.pth", "OCT"),
        ("vfm_fundus_weights.pth", "Fundus"),
        ("VFM_SlitLamp_weights.pth", "SlitLamp"),
    ],
)
def test_visionfm_is_known_by_the_name_of_its_file_and_brings_the_modality_s_normalisation(
    name: str, modality: str
) -> None:
    facts, note = inputs_by_name(name, {})
    assert (facts.mean, facts.std) == VISIONFM[modality]
    assert note == f"read as VisionFM, with its normalisation of {modality} images"


def test_visionfm_s_own_trainings_save_the_modality_among_their_arguments() -> None:
    facts, _ = inputs_by_name("checkpoint.pth", {"args": argparse.Namespace(modality="OCT")})
    assert facts.mean == VISIONFM["OCT"][0]
    assert inputs_by_name("checkpoint.pth", {"args": argparse.Namespace(arch="vit_base")}) == (
        InputFacts(),
        "",
    )


def test_retfound_s_dinov2_line_is_used_at_its_own_size() -> None:
    facts, note = inputs_by_name("RETFound_dinov2_meh.pth", {})
    assert facts == InputFacts(image_size=224)
    assert "224 pixels" in note


@pytest.mark.parametrize("name", ["dinov2_vitl14_pretrain.pth", "RETFound_mae_meh.pth", "VFM_MyTask.pth", ""])
def test_nothing_is_known_of_other_files(name: str) -> None:
    assert inputs_by_name(name, ["no mapping"]) == (InputFacts(), "")


@pytest.mark.parametrize("name", ["retfoundgreen_statedict.pth", "RETFound_Green.safetensors"])
def test_retfound_green_has_a_size_and_a_normalisation_of_its_own(name: str) -> None:
    assert inputs_by_name(name, {})[0] == RETFOUND_GREEN
    assert RETFOUND_GREEN.mean == (0.5, 0.5, 0.5)
