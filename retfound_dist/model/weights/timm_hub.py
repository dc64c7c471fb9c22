"""timm's published weights by name, such as `vit_base_patch16_224.mae`: from the local cache, else fetched.

Where there is no network they are fetched once elsewhere (`python -c "import timm;
timm.create_model('NAME', pretrained=True)"`) and found again in Hugging Face's cache, $HF_HOME.
"""

from __future__ import annotations

from typing import Any

from retfound_dist.errors import WeightsError

FILE = "model.safetensors"


def is_name(text: str) -> bool:
    """Whether timm has a model of this name, with published weights or without."""
    if "/" in text or ":" in text:
        return False
    import timm

    return bool(timm.is_model(text))


def weights_file(name: str) -> str:
    """The local path of a model's weights; WeightsError where there are none, or none can be had."""
    import timm
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    published: Any = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    if published is None or not published.hf_hub_id:
        raise WeightsError(f"timm publishes no weights for {name}: give one of timm.list_pretrained('vit_*')")
    held = try_to_load_from_cache(published.hf_hub_id, FILE)
    if isinstance(held, str):
        return held
    try:
        return str(hf_hub_download(published.hf_hub_id, FILE))
    except Exception as error:  # the hub's errors share no base class of their own
        raise WeightsError(
            f"the weights of timm's {name} are not in {constants.HF_HUB_CACHE} and cannot be fetched "
            f"({type(error).__name__}): fetch {published.hf_hub_id} where there is network, or give a file"
        ) from error
