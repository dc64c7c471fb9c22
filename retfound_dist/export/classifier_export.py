"""Exports a kept classifier: the file or folder in one of four formats, and the text of its card.

onnx, torchscript    the networks of all seeds in one graph, from uint8 images to calibrated probabilities
timm, hf             the network of one seed, from normalised images to logits
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.evaluate.classifier.classifier import Classifier, load_classifier
from retfound_dist.export import classifier_graph, classifier_weights
from retfound_dist.export.classifier_card import (
    CardFacts,
    licence_text,
    make_classifier_card,
    preparation_text,
)
from retfound_dist.export.exported_files import GRAPH_FORMATS
from retfound_dist.export.merged_adapters import classifier_of_seeds, merged_classifier
from retfound_dist.export.output_words import output_words
from retfound_dist.io import storage
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.model.weights.export import HF_CONFIG, HF_WEIGHTS
from retfound_dist.runtime.versions import installed


def export_classifier(url: str, kind: str, out: str, seed: int | None) -> tuple[int, str, list[str]]:
    """Write a classifier; returns the size of its weights file in bytes, its card, and lines for the user.

    `url`: the classifier's folder. `kind`: onnx, torchscript, timm or hf. `seed`: None for all seeds in a
    graph, and for the first one in weights. ConfigError where there is no such seed, WeightsError where the
    format cannot hold this network.
    """
    if kind == "onnx":
        classifier_graph.check_packages()
    classifier = load_classifier(url)
    unit = classifier.facts.unit["kind"]
    if classifier.pools:
        raise WeightsError(
            f"{url} scores each {unit} by attention over its images, which no export format holds: "
            "use load_classifier in Python, or evaluate with finetune.pool=mean"
        )
    if seed is not None and seed not in classifier.seeds:
        raise ConfigError(f"--seed {seed}: {url} has the seeds {', '.join(map(str, classifier.seeds))}")
    # To local scratch first: a store takes whole files, and a failed write must leave nothing at the target.
    with new_temporary_folder() as name:
        if kind in GRAPH_FORMATS:
            seeds: Sequence[int] = classifier.seeds if seed is None else (seed,)
            arguments: dict[str, Any] = {}
            line = _write_graph(classifier, kind, seeds, out, Path(name))
        else:
            seeds = (classifier.seeds[0] if seed is None else seed,)
            network = _write_weights(classifier, kind, seeds[0], out, Path(name))
            arguments = {"architecture": network.architecture, **network.arguments}
            line = _seed_line(classifier, seeds[0])
        size = sum(path.stat().st_size for path in Path(name).iterdir())
    facts = CardFacts(
        storage.name(out), kind, classifier.facts, tuple(seeds), classifier.backbone.family, arguments
    )
    lines = [line] if unit == "image" else [line, _unit_line(unit, kind)]
    return size, make_classifier_card(facts), lines


def _write_graph(classifier: Classifier, kind: str, seeds: Sequence[int], out: str, folder: Path) -> str:
    merged, path = merged_classifier(classifier, seeds), str(folder / "graph")
    write = classifier_graph.write_onnx if kind == "onnx" else classifier_graph.write_torchscript
    difference = write(merged, path, metadata(merged), classifier_of_seeds(classifier, seeds))
    storage.put_file(path, out)
    output = output_words(classifier.facts).graph_output
    return f"checked: {output} differ from the classifier's by at most {difference:.1g}"


def _write_weights(
    classifier: Classifier, kind: str, seed: int, out: str, folder: Path
) -> classifier_weights.TimmNetwork:
    """Write the network of one seed for timm (a file) or for a hub (a folder). `folder`: a temporary one."""
    network = classifier_weights.timm_network(classifier, seed)
    if kind == "timm":
        classifier_weights.write_pth(network, str(folder / "weights"))
        storage.put_file(str(folder / "weights"), out)
        return network
    classifier_weights.write_folder(network, folder)
    # The config last: timm does not load a folder without it, so a half-written folder is refused.
    storage.put_file(str(folder / HF_WEIGHTS), storage.join(out, HF_WEIGHTS))
    config = classifier_weights.hub_config(network, list(output_words(classifier.facts).network_names))
    storage.write_json(storage.join(out, HF_CONFIG), config)
    return network


def _unit_line(unit: str, kind: str) -> str:
    line = f"the scores in the card are of each {unit}, but the exported network predicts single images: "
    if kind in GRAPH_FORMATS:
        # The scores are of the mean of logits in each seed, and a graph gives probabilities of their mean.
        return f"{line}for those of each {unit} use `retfound predict --unit {unit}`, or --format timm"
    return f"{line}take the mean of the logits of the images of each {unit}"


def _seed_line(classifier: Classifier, seed: int) -> str:
    kind, count = output_words(classifier.facts).network_kind, len(classifier.seeds)
    missing = [
        *(["the mean over seeds"] if count > 1 else []),
        *([] if classifier.task else ["the temperature"]),
    ]
    text = f"the network of seed {seed}" + (f", one of {count} (--seed chooses another)" if count > 1 else "")
    if not missing:
        return f"{text}: {kind}"
    onnx_hint = f"; --format onnx has {'both' if len(missing) > 1 else 'it'}" if count > 1 else ""
    return f"{text}: {kind}, without {' and '.join(missing)}{onnx_hint}"


def metadata(classifier: Classifier) -> dict[str, str]:
    """What a graph says of itself: classes, input, preparation, licence, version."""
    facts = classifier.facts
    side = classifier.image_size
    return {
        "classes": json.dumps(list(classifier.classes), ensure_ascii=False),
        "image_size": str(side),
        "input": f"images: uint8, gray, (batch, 1, {side}, {side})",
        "output": f"{output_words(facts).graph_output}: float32, (batch, {len(classifier.classes)}), in the "
        "order of classes",
        "preparation": preparation_text(side, str(facts.normalisation["interpolation"])),
        "seeds": json.dumps(list(classifier.seeds)),
        "temperature": json.dumps(facts.temperature["value"]),
        "task": json.dumps(facts.task),
        "thresholds": json.dumps(facts.thresholds),
        "network": classifier.backbone.family,
        "licence": licence_text(facts.starting_weights),
        "use": "for research only; not a medical device, not for diagnosis",
        "data_fingerprint": str(facts.data.get("fingerprint", "")),
        "version": installed("retfound-dist").get("retfound-dist", ""),
    }
