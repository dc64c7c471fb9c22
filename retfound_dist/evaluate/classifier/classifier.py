"""A kept classifier as a network: images in, probabilities out.

    classifier = load_classifier("EVALUATION/classifier")
    probabilities_BC = classifier(images)          # uint8, or floats from 0 to 1

Shapes: S seeds, B batch, C classes, H W pixels of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from retfound_dist.config.schema import MULTICLASS, Finetune
from retfound_dist.errors import WeightsError
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.evaluate.classifier.classifier_file import POOL_PREFIX, ClassifierFile
from retfound_dist.evaluate.finetune.trained_parameters import prepare_model
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.scores.temperature import scale_by_temperature
from retfound_dist.evaluate.tasks.task_facts import facts_from_json
from retfound_dist.evaluate.tasks.task_outputs import task_predictions
from retfound_dist.evaluate.units.attention_pool import AttentionPool, pool_of_state
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.model.backbones.input_layer import InputLayer
from retfound_dist.model.backbones.opening import empty_backbone
from retfound_dist.model.cpu_bf16 import choose_cpu_operators, has_bf16_instructions


class Classifier(nn.Module):
    """The networks of all seeds. The prediction is the mean of their probabilities."""

    temperature: Tensor

    def __init__(
        self,
        models: Sequence[nn.Module],
        backbone: Backbone,
        facts: ClassifierFile,
        pools: Sequence[AttentionPool] = (),
    ) -> None:
        super().__init__()
        # The attention head of each seed; none where images are scored, or units by the mean of logits.
        self.pools = nn.ModuleList(pools)
        self.models, self.backbone, self.facts = nn.ModuleList(models), backbone, facts
        self.classes = tuple(facts.classes)
        """What each column of a prediction is."""
        self.task = None if facts.task["kind"] == MULTICLASS else facts_from_json(facts.task)
        """None for classes."""
        self.seeds = tuple(entry.seed for entry in facts.seeds)
        self.image_size = facts.image_size
        self.input_layer = InputLayer(backbone.preparation, facts.image_size)
        self.register_buffer("temperature", torch.tensor(float(facts.temperature["value"])), persistent=False)

    def seed_logits(self, images_BCHW: Tensor) -> Tensor:
        """(S, B, C): the logits of each seed, in fp32."""
        normalised = self.input_layer(images_BCHW)
        return torch.stack([model(normalised).float() for model in self.models])

    def seed_predictions(self, logits_SBC: Tensor) -> Tensor:
        """(S, B, C): what the outputs mean: probabilities, or the number of a regression."""
        if self.task is None:
            return logits_SBC.softmax(-1)
        return torch.stack([task_predictions(self.task, logits_BC) for logits_BC in logits_SBC])

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, C): calibrated probabilities. DataError where the images are not as follows.

        Images are those that `read_images` gives: gray (B, 1, H, W) or colour (B, 3, H, W) of the
        network's size, as uint8 or as floats from 0 to 1.
        """
        self.input_layer.check(images_BCHW)
        return self.probabilities(images_BCHW)

    def probabilities(self, images_BCHW: Tensor) -> Tensor:
        """(B, C): calibrated probabilities, without a check of the images. It can be traced."""
        mean_BC = self.seed_predictions(self.seed_logits(images_BCHW)).mean(0)
        if self.task is not None:
            return mean_BC
        # Probabilities of 0 have no logarithm.
        return (mean_BC.clamp(min=1e-12).log() / self.temperature).softmax(-1)


def load_classifier(url: str) -> Classifier:
    """The classifier at a path or URL, in eval mode; WeightsError where it cannot be used.

    `url`: the folder `classifier/` of an evaluation, or the evaluation itself.
    """
    url = classifier_file.resolve(url)
    facts = classifier_file.read(url)
    task = classifier_file.task_of(facts, url)
    outputs = len(facts.classes) if task is None else task.outputs
    backbone = empty_backbone(facts.backbone)
    recipe = _recipe_of(facts.recipe, url)
    models, pools = [], []
    with new_temporary_folder() as folder:
        for entry in facts.seeds:
            path = str(Path(folder) / "weights.safetensors")
            classifier_file.fetch(url, entry.file, facts.files[entry.file], path)
            model = backbone.build(outputs)
            prepare_model(model, backbone, recipe, entry.seed)
            state = load_file(path)
            of_pool = [key for key in state if key.startswith(POOL_PREFIX)]
            pool_state = {key.removeprefix(POOL_PREFIX): state.pop(key) for key in of_pool}
            try:
                model.load_state_dict(state)
                if pool_state:
                    pools.append(pool_of_state(pool_state))
            except RuntimeError as error:
                raise WeightsError(
                    f"the weights of {url} do not fit its network ({str(error).splitlines()[0]}): "
                    "install the versions that classifier.json names"
                ) from error
            models.append(model.requires_grad_(False))
    return Classifier(models, backbone, facts, pools).eval()


def _recipe_of(tree: Mapping[str, Any], url: str) -> Finetune:
    """The settings that decide which layers the network has."""
    names = ("method", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
    try:
        return Finetune().with_change({name: tree[name] for name in names if name in tree})
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
        raise WeightsError(f"{url}: the recipe in classifier.json is damaged: {fault}") from error


def uses_bf16_here(classifier: Classifier) -> bool:
    """Whether this machine predicts in bf16, because the evaluation did, and it can."""
    is_gpu = classifier.temperature.device.type == "cuda"
    return classifier.facts.precision == "bf16" and (is_gpu or has_bf16_instructions())


@torch.inference_mode()
def seed_probabilities(classifier: Classifier, images: Sequence[Pixels]) -> Floats:
    """(S, N, C) of gray images (H, W), as the evaluation predicted its test part: not calibrated, rounded.

    Every forward pass has the batch of the evaluation, filled up with black images.
    """
    facts, device = classifier.facts, classifier.temperature.device
    bf16 = uses_bf16_here(classifier)
    if bf16 and device.type == "cpu":
        for model in classifier.models:
            choose_cpu_operators(model, "bf16")
    batches = []
    for start in range(0, len(images), facts.batch):
        rows = images[start : start + facts.batch]
        batch = torch.zeros(facts.batch, 1, *rows[0].shape, dtype=torch.uint8)
        batch[: len(rows), 0] = torch.from_numpy(np.stack(rows))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits_SBC = classifier.seed_logits(batch.to(device))
        predictions_SBC = classifier.seed_predictions(logits_SBC[:, : len(rows)])
        batches.append(predictions_SBC.double().cpu().numpy())
    return np.concatenate(batches, axis=1).round(facts.digits)


def mean_probabilities(classifier: Classifier, probabilities_SNC: Floats, *, calibrated: bool) -> Floats:
    """(N, C): the mean over seeds, rounded as in predictions.csv; `calibrated`: at the fitted temperature."""
    return mean_of_seeds(classifier.facts, probabilities_SNC, calibrated=calibrated)


def mean_of_seeds(facts: ClassifierFile, probabilities_SNC: Floats, *, calibrated: bool) -> Floats:
    """`mean_probabilities`, where the weights are not loaded."""
    mean_NC = bootstrap.mean_probabilities(probabilities_SNC).round(facts.digits)
    if not calibrated or facts.task["kind"] != MULTICLASS:
        return mean_NC
    return scale_by_temperature(mean_NC, float(facts.temperature["value"])).round(facts.digits)
