"""Finds timm's published weights by name (`vit_base_patch16_224.mae`): in the local cache, else online.

For a machine without network, fetch them once on another (`python -c "import timm;
timm.create_model('NAME', pretrained=True)"`), and copy Hugging Face's cache, $HF_HOME.
"""

from __future__ import annotations

from typing import Any

from retfound_dist.errors import WeightsError

FILE = "model.safetensors"


def is_timm_model(text: str) -> bool:
    """Whether timm has a model of this name, with published weights or without."""
    # Most paths and URLs are recognised here, before timm is imported, which takes seconds.
    if "/" in text or ":" in text:
        return False
    import timm

    return bool(timm.is_model(text))


def weights_file(name: str) -> str:
    """The local path of a model's weights; WeightsError if there are none or they cannot be fetched."""
    import timm
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    published: Any = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    if published is None or not published.hf_hub_id:
        raise WeightsError(f"timm publishes no weights for {name}: give one of timm.list_pretrained('vit_*')")
    # The cache first: `hf_hub_download` asks the network for a newer file, and waits if it cannot be reached.
    cached = try_to_load_from_cache(published.hf_hub_id, FILE)
    # Not `is not None`: the cache returns another object for a file that is known not to exist.
    if isinstance(cached, str):
        return cached
    try:
        return str(hf_hub_download(published.hf_hub_id, FILE))
    # The hub's errors share no base class of their own.
    except Exception as error:
        raise WeightsError(
            f"the weights of timm's {name} are not in {constants.HF_HUB_CACHE} and cannot be fetched "
            f"({type(error).__name__}): fetch {published.hf_hub_id} on a machine with network, or give a file"
        ) from error
