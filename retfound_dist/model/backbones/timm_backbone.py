"""Any model of timm, with weights in a layout that timm reads: loaded by timm's own conversion.

Sources: timm 1.0.31, `timm.create_model` and `pretrained_cfg`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import timm
import torch
from torch import Tensor, nn

from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.model.backbones.backbone import Backbone, InputFacts, preparation_of
from retfound_dist.model.backbones.plain_vit import nearest_multiple
from retfound_dist.model.vit import start_head
from retfound_dist.model.weights.containers import Candidate, State


def published_config(name: str) -> Any:
    """timm's `pretrained_cfg` of a name, with a tag or without; WeightsError if timm has no such model."""
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        similar_names = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        guess = f"did you mean {' or '.join(similar_names)}?"
        hint = f": {guess}" if similar_names else ": see timm.list_models()"
        raise WeightsError(f"timm has no model {architecture}{hint}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [model.split(".", 1)[1] for model in timm.list_pretrained(f"{architecture}.*")]
        raise WeightsError(
            f"timm's {architecture} has no weights with the tag {name.split('.', 1)[1]}: "
            f"choose {', '.join(tags) or 'the name without a tag'}"
        ) from error
    # A few architectures have no published weights at all.
    return config or timm.models.PretrainedCfg(architecture=architecture)


def published_inputs(name: str) -> InputFacts:
    """What timm says of a model's images."""
    config = published_config(name)
    return InputFacts(int(config.input_size[1]), tuple(config.mean), tuple(config.std), config.interpolation)


TIMM = "timm"
"""`kind` in `TimmBackbone.to_json`."""


class TimmBackbone(Backbone):
    """A timm model at an image size; without `load` random."""

    def __init__(
        self,
        name: str,
        load: Callable[[], Sequence[Candidate]] | None,
        image_size: int | None = None,
        published: InputFacts | None = None,
        url: str = "",
    ) -> None:
        """`load` gives the groups of tensors that may be the network, the most likely first.

        `image_size`: None for the size that the weights were published with. `published` takes the place of
        what timm says. `url` names the weights in messages.
        """
        self._name, self._load, self._url = name, load, url or name
        self._config, self._published = published_config(name), published or InputFacts()
        inputs = published_inputs(name)
        self.family = name.split(".")[0]
        self.image_size = image_size or self._published.image_size or inputs.image_size or 224
        self.preparation = preparation_of(self._published, inputs)
        self._check_size()

    def architecture(self) -> dict[str, Any]:
        """timm's name."""
        return {"name": self.family}

    def to_json(self) -> dict[str, Any]:
        """timm's name, size and the preparation of images."""
        return {
            "kind": TIMM,
            "name": self._name,
            "image_size": self.image_size,
            "preparation": asdict(self.preparation),
        }

    def at_size(self, image_size: int) -> TimmBackbone:
        """The same weights at another input size."""
        return TimmBackbone(self._name, self._load, image_size, self._published, self._url)

    def filling_state(self) -> Candidate:
        """The first group of tensors that fills the encoder; WeightsError if none does."""
        faults: list[WeightsError] = []
        for candidate in self._load() if self._load else ():
            try:
                self._check_filled(candidate.state)
            except WeightsError as error:
                faults.append(error)
            else:
                return candidate
        raise faults[0] if faults else WeightsError(f"{self._url} holds no tensors: give a file of weights")

    def build(self, classes: int = 0, drop_path: float = 0.0, seed: int = 0) -> nn.Module:
        """timm's own pooling and head. The first group of tensors is taken: `filling_state` has chosen it."""
        options = {"drop_path_rate": drop_path} if drop_path and self.takes_drop_path else {}
        state = self._load()[0].state if self._load else None
        torch.manual_seed(seed)
        model = self._create(classes, state, **options)
        if classes:
            start_head(_head(model))
        return model

    def skeleton(self) -> nn.Module:
        """The encoder on the meta device."""
        with torch.device("meta"):
            return self._create(0, None)

    def _create(self, classes: int, state: Mapping[str, Tensor] | None, **options: Any) -> nn.Module:
        """timm's model, with the given tensors; WeightsError if they do not fit."""
        # Only models whose layers depend on the input's size know `img_size`; the others take any.
        if self._config.fixed_input_size:
            options["img_size"] = self.image_size
        overlay: dict[str, Any] = {}
        if state is not None:
            # -1 is never the number of classes. So timm drops the file's head, whatever its shape. timm then
            # ignores tensors that are missing or extra. `_check_filled` finds missing ones.
            overlay = {"state_dict": dict(state), "num_classes": -1, "label_offset": 0}
        try:
            model: nn.Module = timm.create_model(
                self.family,
                pretrained=state is not None,
                pretrained_cfg=self._config.to_dict(),
                pretrained_cfg_overlay=overlay,
                num_classes=classes,
                **options,
            )
            return model
        except (RuntimeError, KeyError, ValueError, AssertionError, TypeError, AttributeError) as error:
            if state is None:
                raise
            raise WeightsError(
                f"{self._url} does not fit timm's {self.family}: {_first_fault(error)}"
            ) from error

    def _check_filled(self, state: State) -> None:
        """WeightsError if a state leaves any part of the encoder as it was drawn.

        timm does not tell what a file left out where the number of classes differs. So a state of NaNs goes
        the same way as the file's: what is a number afterwards was not loaded.
        """
        # One number, expanded: it takes no memory of its own.
        nan = torch.full((), torch.nan)
        model = self._create(0, {name: nan.expand(tensor.shape) for name, tensor in state.items()})
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        # Buffers that no state dict holds (RoPE's periods) are computed, not loaded.
        kept = [name for name in model.state_dict() if tensors[name].is_floating_point()]
        missing = [name for name in kept if not tensors[name].isnan().any()]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise WeightsError(
                f"{self._url} does not fit timm's {self.family}: it has nothing for {', '.join(missing[:3])}"
                f"{more} ({len(missing)} of {len(kept)} tensors): give the name of its own architecture"
            )

    @cached_property
    def takes_drop_path(self) -> bool:
        """Whether timm's architecture has stochastic depth."""
        try:
            with torch.device("meta"):
                self._create(0, None, drop_path_rate=0.1)
        except TypeError:
            return False
        return True

    def _check_size(self) -> None:
        """ConfigError if the family cannot take this image size."""
        # timm's ViTs cut off what is left of a patch, without a word.
        patch = 0
        try:
            model: Any = self.skeleton().eval()
            patch = _patch(model)
            if patch and self.image_size % patch:
                raise ValueError(f"it is no multiple of the patch of {patch} pixels")
            with torch.no_grad():
                model.forward_features(torch.zeros(1, 3, self.image_size, self.image_size, device="meta"))
        except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError) as error:
            published_size = int(self._config.input_size[1])
            advice = nearest_multiple(self.image_size, patch) if patch else published_size
            raise ConfigError(
                f"model.image_size={self.image_size} does not fit timm's {self.family} "
                f"({_first_fault(error)}): choose {advice}, or another model"
            ) from error


def _patch(model: Any) -> int:
    """Side of a ViT's patch in pixels; 0 if the model has none."""
    size = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    return int(size[0]) if isinstance(size, tuple) else 0


def _head(model: Any) -> nn.Module | None:
    head = model.get_classifier()
    return head if isinstance(head, nn.Linear) else None


def _first_fault(error: BaseException) -> str:
    """The first line of an error that says something: torch's begins with a heading of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        lines = lines[1:]
    return lines[0][:200] if lines else type(error).__name__
