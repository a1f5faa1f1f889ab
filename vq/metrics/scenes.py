"""Figures of the crops of boxes: SceneFID, and the classification accuracy score."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.errors import UserError
from vq.interfaces import FeatureNetwork
from vq.metrics.crops import crops_of
from vq.metrics.features.frechet import frechet_distance
from vq.metrics.features.statistics import FeatureStatistics, Moments

SIDE = 224  # pixels a side of a crop, in the paper
ROWS = 64  # crops that the network sees at once


@torch.no_grad()
def crop_features(network: FeatureNetwork, images: Tensor, layout: Condition, size: int = SIDE, shape: bool = False) -> Tensor:
    """The features (R, D) of the crops of all boxes, in the order of ``crops_of``. ``shape``: crops keep theirs."""
    assert layout.boxes is not None and layout.boxes_mask is not None
    crops = crops_of(images, layout.boxes, layout.boxes_mask, size, shape)
    if not len(crops):
        raise UserError('there is no box to take features of', 'Give layouts with boxes.')
    return torch.cat([network(part).pooled for part in torch.split(crops, ROWS)])


def moments_of(features: Tensor) -> Moments:
    statistics = FeatureStatistics(features.shape[1])
    statistics.update(features)
    return statistics.compute()


def scene_fid(real: Tensor, made: Tensor) -> float:
    """The Frechet distance of the features (R, D) of crops of true and of drawn images (Sylvain et al. 2021)."""
    return frechet_distance(moments_of(made), moments_of(real)).value


def classification_accuracy_score(
    made: Tensor, asked: Tensor, real: Tensor, true: Tensor, classes: int, ridge: float = 1e-3
) -> float:
    """CAS: the accuracy on true crops of a classifier that has learned from drawn crops alone (Ravuri and Vinyals 2019).

    made (R, D) and real (S, D) are features, asked (R,) and true (S,) classes. The classifier is linear: of all W and b the
    one with the least  |X W + b - Y|^2 / R + ridge |W|^2,  Y one-hot and X the drawn features, each divided by its deviation.
    It is exact, so that the score depends on nothing else; the paper trains a network.
    """
    if not len(made) or not len(real):
        raise UserError(f'there are {len(made)} drawn and {len(real)} true crops', 'Give some of both.')
    x, y = made.double(), F.one_hot(asked.long(), classes).double()
    mean, scale = x.mean(0), x.std(0, correction=0).clamp(min=1e-8)
    x = (x - mean) / scale
    gram = x.T @ x / len(x) + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram, x.T @ (y - y.mean(0)) / len(x))
    scores = (real.double() - mean) / scale @ weights + y.mean(0)
    return float((scores.argmax(1) == true).double().mean())
