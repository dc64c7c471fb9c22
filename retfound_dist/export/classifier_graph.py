"""Writes a classifier as one graph: ONNX or TorchScript, from uint8 images to calibrated probabilities.

The graph has the normalisation, the networks of all seeds, the mean of their probabilities and the
temperature. That of a regression gives numbers. Each graph is run once before it is written to its place,
and must agree with the classifier.

Shapes: B batch, S the side of the input, C classes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from retfound_dist.errors import WeightsError
from retfound_dist.evaluate.classifier.classifier import Classifier
from retfound_dist.evaluate.tasks.task_facts import REGRESSION
from retfound_dist.export.output_words import output_words
from retfound_dist.runtime import humanize
from retfound_dist.runtime.optional_packages import requires_extra

INPUT = "images"
TOLERANCE = 1e-4
"""Largest difference between a probability of the graph and of the classifier."""
_FLOAT32_ERROR = 1e-6
"""Relative error of a number after some operations in single precision."""
MAX_ONNX_BYTES = 2_000_000_000
"""protobuf, ONNX's container, holds 2 GiB in one file."""
_OPSET = 17
"""The first with layer norm."""


class ClassifierGraph(nn.Module):
    """What is traced: images (B, 1, S, S) as uint8 to probabilities (B, C)."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images_B1SS: Tensor) -> Tensor:
        """(B, C)"""
        return self.classifier.probabilities(images_B1SS)


def check_packages() -> None:
    """ConfigError where the packages of --format onnx are not installed."""
    with requires_extra("--format onnx", "onnx", "choose --format torchscript"):
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401


def write_onnx(
    classifier: Classifier, path: str, metadata: Mapping[str, str], reference: Classifier | None = None
) -> float:
    """Write a classifier to a local path; returns the largest difference to `reference`, on the CPU.

    `reference`: the same networks as they were kept, with low-rank adapters that are not merged.
    WeightsError where it is too large for a file, or where the graph computes something else.
    """
    check_packages()
    import onnx
    import onnxruntime

    size = sum(value.numel() * value.element_size() for value in classifier.state_dict().values())
    if size > MAX_ONNX_BYTES:
        raise WeightsError(
            f"the classifier has {humanize.size(size)} of weights, and an ONNX file holds "
            f"{humanize.size(MAX_ONNX_BYTES)}: export one network with --seed {classifier.seeds[0]}, or "
            "choose --format torchscript"
        )
    output = output_words(classifier.facts).graph_output
    with warnings.catch_warnings():
        # Warnings about Python values in timm's forward, which are the same for every batch; the check
        # below would notice if they were not.
        warnings.simplefilter("ignore")
        # The newer exporter (dynamo=True) needs minutes for a small ViT, and far more for each seed of a
        # large one. Both gave the same probabilities.
        torch.onnx.export(
            ClassifierGraph(classifier).eval(),
            (_random_images(classifier, 2),),
            path,
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=[output],
            dynamic_axes={INPUT: {0: "batch"}, output: {0: "batch"}},
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _checked_difference(
        reference or classifier,
        lambda images: torch.from_numpy(session.run([output], {INPUT: images.numpy()})[0]),
    )


def write_torchscript(
    classifier: Classifier, path: str, metadata: Mapping[str, str], reference: Classifier | None = None
) -> float:
    """Write a classifier to a local path; returns the largest difference to `reference` (see `write_onnx`).

    `metadata` is in the file as `metadata.json`. WeightsError where the graph computes something else.
    """
    with warnings.catch_warnings():
        # As for ONNX; and torch announces that TorchScript will not be developed further.
        warnings.simplefilter("ignore")
        graph = torch.jit.trace(  # type: ignore[no-untyped-call]
            ClassifierGraph(classifier).eval(), _random_images(classifier, 2), check_trace=False
        )
        extra = {"metadata.json": json.dumps(dict(metadata), ensure_ascii=False, indent=1)}
        torch.jit.save(graph, path, _extra_files=extra)
        again = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return _checked_difference(reference or classifier, again)


def _random_images(classifier: Classifier, count: int) -> Tensor:
    """(count, 1, S, S) uint8: the same noise for the same count."""
    side = classifier.image_size
    pixels = np.random.default_rng(count).integers(0, 256, (count, 1, side, side), dtype=np.uint8)
    return torch.from_numpy(pixels)


@torch.inference_mode()
def _checked_difference(classifier: Classifier, graph: Callable[[Tensor], Tensor]) -> float:
    """The largest difference between the predictions of a classifier and of its graph, on random images.

    The batches have other sizes than the one that was traced, so that a graph with a fixed size fails.
    Raises WeightsError where the difference is too large.
    """
    largest = 0.0
    for count in (1, 3):
        images = _random_images(classifier, count)
        expected = classifier.probabilities(images)
        actual = graph(images)
        if actual.shape != expected.shape or not bool(actual.isfinite().all()):
            largest = float("inf")
            break
        largest = max(largest, float((actual - expected).abs().max()))
    allowed = _allowed_difference(classifier)
    # Written so that a NaN is a fault too.
    if not largest <= allowed:
        raise WeightsError(
            f"the graph of a {classifier.backbone.family} differs from the classifier by {largest:.2g} "
            f"(allowed: {allowed:g}): nothing is written; choose another --format"
        )
    return largest


def _allowed_difference(classifier: Classifier) -> float:
    """The largest difference of a graph from its classifier that is not an error.

    It is `TOLERANCE` for probabilities. The predictions of a regression are numbers in the unit of the
    labelled set, so it is scaled to them.
    """
    task = classifier.task
    if task is None or task.kind != REGRESSION:
        return TOLERANCE
    # A number is output x std + mean. A large mean costs digits of the sum.
    return TOLERANCE * task.std + _FLOAT32_ERROR * abs(task.mean)
