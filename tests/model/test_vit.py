import torch

from retfound_dist.model.backbones.backbone import Preparation
from retfound_dist.model.mae import EncoderShape
from retfound_dist.model.vit import build_classifier


def test_classifier_averages_patch_tokens_behind_fc_norm() -> None:
    model = build_classifier(EncoderShape(64, 2, 1, 14), 28, 5).eval()
    assert model.head.weight.abs().max() < 1e-3
    x = Preparation().normalise(torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8))
    tokens = model.forward_features(x)
    expected = model.head(model.fc_norm(tokens[:, 1:].mean(dim=1)))
    torch.testing.assert_close(model(x), expected)


def test_grey_is_repeated_and_normalised_by_imagenets_statistics() -> None:
    x = Preparation().normalise(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8))
    torch.testing.assert_close(
        x[0, :, 0, 0], torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    )
