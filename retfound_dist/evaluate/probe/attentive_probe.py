"""An attentive probe: learned queries choose which patch tokens count, and a linear classifier follows.

The mean of the tokens hides what only a few patches show. Encoders that were trained by masking keep much of
what they know in single tokens, so the linear probe underrates them. Here each query gives every token a
weight (softmax of the dot products), and the weighted means of all queries are classified. The encoder is
frozen. There are no projections of keys and values, as in Efficient Probing (Psomas et al., "Attention,
Please!", ICLR 2026), because the few images of a labelled set could not teach them.

The probe begins as a linear probe: with queries of almost zero, each weighted mean is the plain mean. More
steps make it more attentive, and fit it more closely to the images. So the number of steps decides how
strongly the probe is restrained. It is chosen as the linear probe's penalty is: by log loss in folds that
divide no patient. One fit passes through all numbers of steps, so this costs only a fit for each fold.

Shapes: N images, B images of a batch, L patches, D width, Q queries, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from retfound_dist.config.schema import Probe
from retfound_dist.evaluate.data.label_subset import subset_indices
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.finetune.finetuning import best_device
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.probe.patch_tokens import Indices, PatchTokens, ReadTokens, in_batches
from retfound_dist.evaluate.probe.patient_folds import Groups, folds
from retfound_dist.evaluate.scores import metrics
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.runtime.progress import ProgressDisplay

QUERIES = 8
STEPS = (20, 40, 80, 160, 320, 640)
"""Numbers of steps to choose from. Adam's rate is constant: a shorter fit is the beginning of a longer."""
_STEP_IMAGES = 64
# Tokens have variance 1 in each channel. A query must grow to a length of about 5 to choose one token of
# many, so it needs a larger rate than the classifier.
_QUERY_RATE, _CLASSIFIER_RATE = 1e-2, 1e-3
_QUERY_SPREAD = 0.02
_SMALLEST_SPREAD = 1e-6
"""A channel that is the same in all tokens is not scaled up."""


def images_to_fit(labels_N: Labels, groups_N: Groups, probe: Probe) -> Indices:
    """Sorted numbers of the images that the probe may be fitted on: all, or `probe.attentive_images`.

    Chosen by class and patient, as `data.label_share` chooses them.
    """
    share = min(1.0, probe.attentive_images / max(1, len(labels_N)))
    if share == 1:
        return np.arange(len(labels_N))
    return subset_indices(labels_N, groups_N, share, probe.seed)


def limit_note(labels_N: Labels, groups_N: Groups, probe: Probe) -> str:
    """A sentence on the images that the probe is not fitted on; empty where it may use all."""
    chosen = len(images_to_fit(labels_N, groups_N, probe))
    if chosen == len(labels_N):
        return ""
    return (
        f"The attentive probe is fitted on {chosen:,} of {len(labels_N):,} images, chosen by class and "
        "patient (probe.attentive_images)."
    )


def open_tokens(
    start: StartingWeights,
    images: Sequence[Pixels],
    labels_N: Labels,
    groups_N: Groups,
    probe: Probe,
    show: ProgressDisplay,
) -> PatchTokens | None:
    """The patch tokens for `probe.kinds`; None if the attentive probe is not among them.

    Labels and groups are those of the first images, which the probe may be fitted on.
    """
    if "attentive" not in probe.kinds:
        return None
    chosen = images_to_fit(labels_N, groups_N, probe)
    if note := limit_note(labels_N, groups_N, probe):
        show.say(note)
    show.begin(f"patch tokens of {start.url}")
    return PatchTokens(start, images, chosen, show.advance)


@dataclass(frozen=True)
class TokenScale:
    """Mean and spread of each channel over all tokens of the fitted images, (D,) each."""

    mean_D: Tensor
    spread_D: Tensor


class AttentiveHead(nn.Module):
    """Weighted means of the tokens, one for each query, then a linear classifier."""

    def __init__(self, scale: TokenScale, shares_C: Tensor, seed: int) -> None:
        """`shares_C`: the share of each class among the fitted images, which is what it predicts at first."""
        super().__init__()
        width = len(scale.mean_D)
        self.mean_D, self.spread_D = scale.mean_D, scale.spread_D
        # On the CPU, because a GPU gives other random numbers for the same seed.
        drawn_QD = torch.randn(QUERIES, width, generator=torch.Generator().manual_seed(seed))
        self.queries_QD = nn.Parameter(_QUERY_SPREAD * drawn_QD)
        # The plain mean of many tokens varies much less than a single token, so the means are scaled again.
        # No moving average: `_set_norm` measures mean and variance over all fitted images. With `None`, torch
        # would read its count of batches from the GPU in each step.
        self.norm = nn.BatchNorm1d(QUERIES * width, affine=False, momentum=1.0)
        self.classifier = nn.Linear(QUERIES * width, len(shares_C))
        nn.init.zeros_(self.classifier.weight)
        with torch.no_grad():
            self.classifier.bias.copy_(shares_C.log())

    def pool(self, tokens_BLD: Tensor) -> Tensor:
        """Weighted means (B, Q x D) of standardised tokens. The tokens are as the encoder gives them."""
        # Standardised tokens are not computed: a softmax does not see the mean of the tokens, and the mean of
        # standardised tokens is the standardised mean.
        scaled_QD = self.queries_QD / self.spread_D / len(self.mean_D) ** 0.5
        weights_BQL = (scaled_QD @ tokens_BLD.mT).softmax(-1)
        pooled_BQD: Tensor = (weights_BQL @ tokens_BLD - self.mean_D) / self.spread_D
        return pooled_BQD.flatten(1)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Logits (B, C)."""
        return cast(Tensor, self.classifier(self.norm(self.pool(tokens_BLD))))


@dataclass(frozen=True)
class FittedAttentiveProbe:
    """A head that is fitted, as scikit-learn's classifiers are used."""

    head: AttentiveHead
    classes_: Labels
    """The classes that had an image, rising."""
    read: ReadTokens

    def predict_proba(self, images: Indices) -> Floats:
        """Probabilities (N, len(classes_)) of the images with these numbers."""
        return _predict(self.head, self.read, images)


def fit_attentive_probe(
    read: ReadTokens, images: Indices, labels_N: Labels, groups_N: Groups, classes: int, probe: Probe
) -> FittedAttentiveProbe:
    """The probe of these images, with the number of steps that predicts other patients best.

    `images`: their numbers for `read`. Labels and groups are theirs. It needs two classes.
    """
    steps = _choose_steps(read, images, labels_N, groups_N, classes, probe)
    *_, (head, present) = _fit_path(read, images, labels_N, steps, probe.seed)
    return FittedAttentiveProbe(head, present, read)


def _choose_steps(
    read: ReadTokens, images: Indices, labels_N: Labels, groups_N: Groups, classes: int, probe: Probe
) -> int:
    """The number of `STEPS` after which the log loss of other patients rises; the fewest without folds."""
    divided = [
        (tested, _fit_path(read, images[fitted], labels_N[fitted], max(STEPS), probe.seed))
        for fitted, tested in folds(labels_N, groups_N, probe.inner_folds, probe.seed)
        if len(np.unique(labels_N[fitted])) > 1
    ]
    best, least_loss = min(STEPS), np.inf
    # All folds advance together, so that no fold goes on when the loss of all has risen.
    for steps in STEPS if divided else ():
        loss = 0.0
        for tested, path in divided:
            head, present = next(path)
            probabilities_NC = np.zeros((len(tested), classes))
            probabilities_NC[:, present] = _predict(head, read, images[tested])
            loss += metrics.mean_log_loss(labels_N[tested], probabilities_NC) * len(tested)
        if loss >= least_loss:
            break
        best, least_loss = steps, loss
    return best


def _fit_path(
    read: ReadTokens, images: Indices, labels_N: Labels, last: int, seed: int
) -> Iterator[tuple[AttentiveHead, Labels]]:
    """The head after each number of steps in `STEPS` until `last`, and the classes that it knows.

    It is one head, which each further step changes.
    """
    device = best_device()
    present, targets, counts = np.unique(labels_N, return_inverse=True, return_counts=True)
    targets_N = torch.from_numpy(targets).to(device)
    shares_C = torch.from_numpy(counts / counts.sum())
    head = AttentiveHead(_token_scale(read, images, device), shares_C, seed).to(device)
    optimizer = torch.optim.Adam(
        [
            {"params": [head.queries_QD], "lr": _QUERY_RATE},
            {"params": head.classifier.parameters(), "lr": _CLASSIFIER_RATE},
        ]
    )
    batches = _drawn_batches(len(images), seed)
    for step in range(1, last + 1):
        places = next(batches)
        logits_BC = head.train()(read(images[places]).to(device).float())
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(logits_BC, targets_N[places])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step in STEPS:
            _set_norm(head, read, images)
            yield head, present


def _drawn_batches(images: int, seed: int) -> Iterator[Indices]:
    """Places of the images of each step: every epoch in a new order, that depends on seed and epoch."""
    size, waiting, epoch = min(images, _STEP_IMAGES), np.empty(0, np.int64), 0
    while True:
        while len(waiting) < size:
            waiting = np.append(waiting, np.random.default_rng([seed, epoch]).permutation(images))
            epoch += 1
        yield waiting[:size]
        waiting = waiting[size:]


@torch.no_grad()
def _set_norm(head: AttentiveHead, read: ReadTokens, images: Indices) -> None:
    """Mean and variance of the pooled tokens over all fitted images.

    A moving average over steps would lag behind the queries, most of all after few steps.
    """
    device = head.queries_QD.device
    pooled_NP = torch.cat([head.pool(read(batch).to(device).float()) for batch in in_batches(images)])
    head.norm.reset_running_stats()
    head.train().norm(pooled_NP)


@torch.inference_mode()
def _predict(head: AttentiveHead, read: ReadTokens, images: Indices) -> Floats:
    device = head.queries_QD.device
    head.eval()
    rows = [head(read(batch).to(device).float()).double().softmax(-1).cpu() for batch in in_batches(images)]
    return cast(Floats, torch.cat(rows).numpy())


@torch.no_grad()
def _token_scale(read: ReadTokens, images: Indices, device: torch.device) -> TokenScale:
    """In fp64, because squares of fp16 tokens overflow and small spreads would vanish."""
    sums, squares, count = torch.zeros(()), torch.zeros(()), 0
    for batch in in_batches(images):
        tokens_TD = read(batch).flatten(0, 1).double()
        sums, squares = sums + tokens_TD.sum(0), squares + tokens_TD.square().sum(0)
        count += len(tokens_TD)
    mean_D = sums / count
    spread_D = (squares / count - mean_D.square()).clamp_min(0).sqrt()
    spread_D = torch.where(spread_D > _SMALLEST_SPREAD, spread_D, 1.0)
    return TokenScale(mean_D.float().to(device), spread_D.float().to(device))
