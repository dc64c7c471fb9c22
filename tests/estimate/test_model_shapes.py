import pytest
import torch

from retfound_dist.config.schema import Model
from retfound_dist.errors import ConfigError
from retfound_dist.estimate import model_shapes
from retfound_dist.model.mae import MaskedAutoencoder

MODELS = [
    Model(),
    Model(name="vit_huge_patch14", mask_ratio=0.85),
    Model(name="vit_demo_patch14", image_size=112, decoder_width=96, decoder_depth=2, decoder_heads=3),
]


@pytest.mark.parametrize("config", MODELS, ids=lambda m: m.name)
def test_sizes_and_tokens_are_those_of_the_model_that_is_built(config: Model) -> None:
    with torch.device("meta"):
        model = MaskedAutoencoder(config)
    sizes = [p.numel() for p in model.parameters() if p.requires_grad]
    assert sorted(model_shapes.parameter_sizes(config)) == sorted(sizes)
    assert model_shapes.parameter_count(config) == sum(sizes)
    found = model_shapes.token_counts(config)
    assert (found.patches, found.kept) == (model.patches, model.visible_patches)


def test_an_unknown_encoder_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="vit_large_patch16"):
        model_shapes.encoder_shape("resnet50")
