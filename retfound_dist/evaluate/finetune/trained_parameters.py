"""Which parameters a fine-tuning method trains: all, the head, or the head and low-rank adapters (LoRA).

LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models") adds B A x to the output of a
layer with input x. A is drawn at random and B starts at 0, so the first forward pass is that of the encoder
alone.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.finetune.training_batches import seeded_generators
from retfound_dist.model.backbones.adapter_targets import adapter_targets
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.runtime.optional_packages import requires_extra

State = dict[str, Tensor]
# The purpose in the keys of random generators; finetuning.py lists all of them.
_ADAPTERS = 15


def check_methods(backbone: Backbone, recipe: Finetune) -> None:
    """ConfigError if a method of the recipe, or of `try_recipes`, cannot be used with this encoder."""
    for variant in [recipe.with_change(change) for change in recipe.try_recipes] or [recipe]:
        if variant.method == "lora":
            adapter_targets(backbone, variant.lora_targets)
            with requires_extra('finetune.method="lora"', "peft", 'use "full" or "head"'):
                import peft  # noqa: F401


def prepare_model(model: nn.Module, backbone: Backbone, recipe: Finetune, seed: int) -> None:
    """Freeze what the method does not train, and insert adapters, which `seed` draws. `full` changes nothing.

    ConfigError as `check_methods`.
    """
    if recipe.method == "full":
        return
    model.requires_grad_(False)
    if recipe.method == "lora":
        _insert_adapters(model, backbone, recipe, seed)
    for module in _head_modules(model):
        module.requires_grad_(True)


def set_training_mode(model: nn.Module, recipe: Finetune) -> None:
    """Training mode for what trains; statistics of frozen batch norms stay as they are.

    With `head` the encoder has no dropout and no stochastic depth either. With `lora` it has.
    """
    model.train(recipe.method != "head")
    if recipe.method == "full":
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    for module in _head_modules(model):
        module.train()


def trained_state(model: nn.Module) -> State:
    """Copies of everything that training can change: trained parameters and all buffers."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    # Copies, because the next step changes these tensors; on the CPU, to save GPU memory.
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in model.state_dict().items()
        if name not in frozen
    }


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trained, all) parameters."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, trained in counts if trained), sum(count for count, _ in counts)


def _insert_adapters(model: nn.Module, backbone: Backbone, recipe: Finetune, seed: int) -> None:
    """Put LoRA adapters into the layers of `finetune.lora_targets`; `seed` draws their first weights."""
    names = adapter_targets(backbone, recipe.lora_targets)
    with requires_extra('finetune.method="lora"', "peft", 'use "full" or "head"'):
        from peft import LoraConfig, inject_adapter_in_model
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        # A pattern for whole names: peft reads a list as ends of names, and `conv1` is the end of many.
        target_modules="|".join(re.escape(name) for name in names),
    )
    with seeded_generators((seed, _ADAPTERS)):
        inject_adapter_in_model(config, model)


def _head_modules(model: Any) -> list[nn.Module]:
    """The classifier, and the norm between pooling and classifier where timm names it `fc_norm`."""
    # A distilled DeiT has two classifiers.
    classifier = model.get_classifier()
    modules = [
        *(classifier if isinstance(classifier, tuple) else (classifier,)),
        getattr(model, "fc_norm", None),
    ]
    return [module for module in modules if isinstance(module, nn.Module)]
