"""`retfound export`: writes weights or a classifier in a format of other programs, and a card beside it."""

from __future__ import annotations

from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.export.exported_files import GRAPH_FORMATS, check_output, write_card
from retfound_dist.formats import url_kinds
from retfound_dist.formats.checkpoint_folder import resolve
from retfound_dist.io import storage
from retfound_dist.runs.model_card import make_weight_card

CHECKPOINT_FORMATS = ("mae", "safetensors")
"""An encoder with its decoder. Of checkpoints only."""


def export_command(
    source: str, kind: str, out: str, force: bool = False, seed: int | None = None, quiet: bool = False
) -> int:
    """Run `retfound export`; `kind`: the format. `source`: a checkpoint, a weights file or a classifier.

    `seed`: which of a classifier's networks is exported. RetfoundError for anything that a user can fix.
    """
    if _is_classifier(source):
        return _export_classifier(source, kind, out, force, seed, quiet)
    if kind in GRAPH_FORMATS:
        # It says that this is a checkpoint, and how a classifier is made of it.
        classifier_file.resolve(source)
    if seed is not None:
        raise ConfigError(
            f"--seed {seed} chooses a network of a classifier, but {source} is none: leave it out"
        )
    return _export_checkpoint(source, kind, out, force)


def _is_classifier(source: str) -> bool:
    """Whether `source` is a classifier, or something that should have one."""
    is_classifier_folder = storage.exists(storage.join(source, classifier_file.CLASSIFIER))
    if is_classifier_folder or classifier_file.has_classifier(source):
        return True
    return url_kinds.kind_at(source) in (url_kinds.EVALUATION, url_kinds.COMPARISON)


def _export_classifier(source: str, kind: str, out: str, force: bool, seed: int | None, quiet: bool) -> int:
    """Write a classifier in a deployment format, and its card; returns the exit code.

    `seed`: the network to write, of those that the evaluation has kept; None for the usual choice.
    """
    url = classifier_file.resolve(source)
    if kind in CHECKPOINT_FORMATS:
        raise ConfigError(
            f"--format {kind} is for pretraining checkpoints, and {url} is a classifier: choose onnx, "
            "torchscript, timm or hf"
        )
    check_output(out, kind, force)
    # Imported here because they load torch, which a wrong --out does not need.
    from retfound_dist.export.classifier_export import export_classifier

    size, card, lines = export_classifier(url, kind, out, seed)
    card_file = write_card(out, kind, card, size)
    if not quiet:
        for line in lines:
            print(line)
    print(f"wrote the classifier {url} to {out} (format {kind}) and its card to {card_file}")
    return 0


def _export_checkpoint(source: str, kind: str, out: str, force: bool) -> int:
    """Write the weights of a checkpoint in another format, and their card; returns the exit code."""
    # Imported here because they load torch, which lists and pages of runs do not need.
    from retfound_dist.model.weights.export import encoder_only, export
    from retfound_dist.model.weights.weight_files import read_weights

    checkpoint = resolve(source)
    weights = read_weights(checkpoint)
    check_output(out, kind, force)
    drops_decoder = kind in ("timm", "hf")
    state = encoder_only(weights.state) if drops_decoder else weights.state
    parameters = sum(value.numel() for value in state.values())
    has_no_decoder = drops_decoder or not weights.has_decoder
    card = make_weight_card(storage.name(out), checkpoint, kind, parameters, weights.meta, has_no_decoder)
    size = export(weights, kind, out)
    card_file = write_card(out, kind, card, size)
    if weights.remark:
        print(weights.remark)
    print(
        f"wrote {len(weights.state)} tensors of {checkpoint} to {out} (format {kind}) "
        f"and their card to {card_file}"
    )
    return 0
