"""Opens models by name or URL: which family reads the file, and with which input.

none                          drawn at random: `random_backbone`
a checkpoint, a file          a plain ViT under MAE's names, else a relative of it (`vit_relatives`), else a
                              family of `timm_families`
timm:NAME[@FILE]              timm's architecture
hf:OWNER/REPO[@REV][/FILE]    a file of the Hugging Face hub, read as one of the above
NAME                          timm's published weights: a plain ViT, else as timm:NAME
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import storage
from retfound_dist.model.backbones.backbone import Backbone, InputFacts, Preparation, preparation_of
from retfound_dist.model.backbones.named_inputs import inputs_by_name
from retfound_dist.model.backbones.plain_vit import PLAIN_VIT, PlainVit
from retfound_dist.model.backbones.timm_backbone import (
    TIMM,
    TimmBackbone,
    published_config,
    published_inputs,
)
from retfound_dist.model.mae import ENCODERS, EncoderShape, encoder_shape
from retfound_dist.model.vit import VitVariant
from retfound_dist.model.weights import hub_repository, timm_hub
from retfound_dist.model.weights.containers import Candidate, all_tensors, find_states
from retfound_dist.model.weights.hub_repository import HubConfig
from retfound_dist.model.weights.model_sources import HubSource, TimmSource, parse
from retfound_dist.model.weights.tensor_file import TensorFile, read_local, read_tensor_file
from retfound_dist.model.weights.timm_families import architecture, trained_size
from retfound_dist.model.weights.vit_relatives import RelativeEncoder, read_relative
from retfound_dist.model.weights.weight_files import Weights, plain_vit_of, read_weights, split_part

RANDOM_SIZE = 224
"""Input side of a plain ViT that is drawn at random, where no size is given (MAE, RETFound)."""


@dataclass(frozen=True)
class OpenedModel:
    """Weights that were read, and what must be remembered to read them again later."""

    sha256: str
    image_size: int
    """The weights' own input side."""
    weights: Weights | None = None
    """Of a plain ViT or a relative of it."""
    timm_name: str = ""
    """Of every other family."""
    states: tuple[Candidate, ...] = ()
    published: InputFacts = field(default_factory=InputFacts)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All but the tensors."""
        weights = self.weights
        return {
            "sha256": self.sha256,
            "image_size": self.image_size,
            "encoder": asdict(weights.shape) if weights else None,
            "variant": asdict(weights.variant) if weights else None,
            "timm_name": self.timm_name,
            "published": asdict(self.published),
            "meta": weights.meta if weights else {},
            "part": weights.part if weights else "",
            "notes": list(weights.notes if weights else self.notes),
            "remark": weights.remark if weights else "; ".join(self.notes),
        }


def random_backbone(name: str, image_size: int | None) -> Backbone:
    """An encoder drawn at random: one of our names, or `timm:NAME`."""
    if name in ENCODERS or not name.startswith("timm:"):
        return PlainVit(None, encoder_shape(name), image_size or RANDOM_SIZE)
    source = parse(name)
    assert isinstance(source, TimmSource)
    if source.file:
        raise ConfigError(f"model.name={name!r} names a file: give it as weights, and model.name without it")
    return TimmBackbone(source.name, None, image_size)


def open_model(url: str) -> OpenedModel:
    """Read a model's weights; WeightsError if they do not fill an encoder that can be used."""
    source = parse(url)
    if isinstance(source, TimmSource):
        file = _timm_file(source)
        path, part = split_part(source.file)
        published, note = inputs_by_name(storage.name(path), file.tree) if path else (InputFacts(), "")
        return _checked(url, source.name, file, part, published, (note,) if note else ())
    if isinstance(source, HubSource):
        return _open_hub(url, source)
    if checkpoint_folder.is_checkpoint(url):
        weights = read_weights(url)
        return OpenedModel(weights.sha256, weights.image_size, weights)
    name, part = split_part(url)
    # A file is preferred to a timm model of the same name, because the user can see it.
    if not storage.exists(name) and timm_hub.is_timm_model(name):
        file = read_local(timm_hub.weights_file(name), name)
        try:
            weights = plain_vit_of(file, name, name, part)
        except WeightsError:
            return _checked(url, name, file, part)
        return OpenedModel(weights.sha256, weights.image_size, weights, published=published_inputs(name))
    return _open_file(url, name, read_tensor_file(name), part, storage.name(name))


def _open_file(url: str, name: str, file: TensorFile, part: str, file_name: str) -> OpenedModel:
    """A file without an architecture's name: a plain ViT, else a family that its tensors tell of.

    `file_name` is that of the weights file itself, also where `url` names a repository.
    """
    published, note = inputs_by_name(file_name, file.tree)
    try:
        # Our own reader first, so that a plain ViT's results stay what they were.
        weights = plain_vit_of(file, url, name, part)
    except WeightsError:
        if relative := read_relative(file.tree, name, part):
            return _opened_relative(url, file, relative)
        for state in _states(file, part, ()):
            if timm_name := architecture(state.state):
                notes = tuple(filter(None, (f"weights: {name} is read as timm's {timm_name}", note)))
                # The file's positions say at which size it was trained.
                size = published.image_size or trained_size(state.state)
                return _checked(url, timm_name, file, part, replace(published, image_size=size), notes)
        raise
    if note:
        weights = replace(weights, notes=(*weights.notes, note))
    image_size = published.image_size or weights.image_size
    return OpenedModel(weights.sha256, image_size, weights, published=published)


def _opened_relative(url: str, file: TensorFile, encoder: RelativeEncoder) -> OpenedModel:
    """The opened model of a relative of the ViT, with the preparation of images that its authors use."""
    weights = Weights(
        origin=url,
        state=encoder.state,
        shape=encoder.shape,
        grid=encoder.grid,
        part=encoder.part,
        other_names=encoder.other_names,
        notes=(f"read as {encoder.variant.family}", *encoder.notes),
        sha256=file.sha256,
        variant=encoder.variant,
    )
    published = InputFacts(mean=encoder.mean, std=encoder.std, interpolation=encoder.interpolation)
    return OpenedModel(file.sha256, weights.image_size, weights, published=published)


def empty_backbone(tree: Mapping[str, Any]) -> Backbone:
    """The encoder that `Backbone.to_json` describes, drawn at random; WeightsError if it is not known."""
    try:
        size, described = int(tree["image_size"]), dict(tree["preparation"])
        preparation = Preparation(
            tuple(described["mean"]), tuple(described["std"]), described["interpolation"]
        )
        if tree["kind"] == PLAIN_VIT:
            shape, variant = EncoderShape(**tree["shape"]), VitVariant(**tree["variant"])
            return PlainVit(None, shape, size, preparation, variant)
        if tree["kind"] == TIMM:
            published = InputFacts(size, preparation.mean, preparation.std, preparation.interpolation)
            return TimmBackbone(tree["name"], None, size, published)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"the description of an encoder is damaged ({error})") from error
    raise WeightsError(
        f"an encoder of kind {tree['kind']!r} is not known here: install the version that wrote it"
    )


def backbone_from(
    url: str, facts: Mapping[str, Any], opened: OpenedModel | None, image_size: int | None
) -> Backbone:
    """The backbone that `facts` (`OpenedModel.to_json`) describe, at a size or its own.

    `opened`: the model where it has just been read. Otherwise it is read at its first use. WeightsError if
    the file has changed by then.
    """
    size = image_size or int(facts["image_size"])
    reread = _reader(url, str(facts["sha256"]), opened)
    # From JSON, whose lists were tuples.
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in facts["published"].items()
    }
    published = InputFacts(**values)
    if facts["timm_name"]:
        return TimmBackbone(facts["timm_name"], lambda: reread().states, size, published, url)
    return PlainVit(
        lambda: _weights_of(reread()),
        EncoderShape(**facts["encoder"]),
        size,
        preparation_of(published),
        VitVariant(**facts["variant"]),
    )


def local_file(url: str) -> str:
    """The file behind a name, for marks of its version: a URL, a path in the hub's cache, or empty."""
    source = parse(url)
    if isinstance(source, TimmSource):
        # First of all, because its error names the models that a misspelt name is near to.
        published_config(source.name)
        return split_part(source.file)[0] if source.file else timm_hub.weights_file(source.name)
    if isinstance(source, HubSource):
        return hub_repository.fetch(source).path
    name, _ = split_part(url)
    if storage.exists(name):
        return name
    return timm_hub.weights_file(name) if timm_hub.is_timm_model(name) else ""


def _weights_of(opened: OpenedModel) -> Weights:
    assert opened.weights is not None
    return opened.weights


def _reader(url: str, sha256: str, opened: OpenedModel | None) -> Callable[[], OpenedModel]:
    @cache
    def read() -> OpenedModel:
        model = opened or open_model(url)
        # Results are stored under the first sha256: other weights must not be scored under it.
        if model.sha256 != sha256:
            raise WeightsError(f"{url} has changed since it was first read: run the command again")
        return model

    return read


def _timm_file(source: TimmSource) -> TensorFile:
    if not source.file:
        return read_local(timm_hub.weights_file(source.name), source.name)
    return read_tensor_file(split_part(source.file)[0])


def _open_hub(url: str, source: HubSource) -> OpenedModel:
    fetched = hub_repository.fetch(source)
    file = read_local(fetched.path, url)
    if fetched.config.get("architecture"):
        return _checked(url, fetched.config["architecture"], file, "", _published(fetched.config))
    try:
        return _open_file(url, url, file, "", storage.name(fetched.name))
    except WeightsError as error:
        family = fetched.config.get("model_type")
        hint = f" (its config.json says {family})" if family else ""
        raise WeightsError(f"{error}{hint}") from error


def _published(config: HubConfig) -> InputFacts:
    """What a timm repository's config.json says of its images."""
    inputs = config.get("pretrained_cfg", {})
    size = inputs.get("input_size")
    return InputFacts(
        image_size=int(size[1]) if isinstance(size, (list, tuple)) and len(size) == 3 else None,
        mean=tuple(inputs["mean"]) if "mean" in inputs else None,
        std=tuple(inputs["std"]) if "std" in inputs else None,
        interpolation=inputs.get("interpolation"),
    )


def _states(file: TensorFile, part: str, names: Sequence[str]) -> tuple[Candidate, ...]:
    states = find_states(file.tree, names)
    return tuple(state for state in states if not part or state.part == part)


def _checked(
    url: str,
    name: str,
    file: TensorFile,
    part: str,
    published: InputFacts | None = None,
    notes: tuple[str, ...] = (),
) -> OpenedModel:
    """A timm model whose weights fill it."""
    published = published or InputFacts()
    backbone = TimmBackbone(name, None, None, published, url)
    states = _states(file, part, list(backbone.skeleton().state_dict()))
    if not states:
        first_names = ", ".join(list(all_tensors(file.tree))[:3])
        where = f" under {part}" if part else ""
        raise WeightsError(f"{url} holds no tensors{where} ({first_names}): give a file of weights")
    filled = TimmBackbone(name, lambda: states, None, published, url).filling_state()
    return OpenedModel(
        file.sha256, backbone.image_size, timm_name=name, states=(filled,), published=published, notes=notes
    )
