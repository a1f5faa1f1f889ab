"""Distances between maps of features, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vq.losses.margins import MarginLoss
from vq.losses.smooth_l1 import SmoothL1Loss


def unit(*degrees: float) -> Tensor:
    """One image whose cells are vectors of length 2 in a plane, (1, 2, 1, n)."""
    angles = torch.tensor(degrees) * math.pi / 180
    return 2 * torch.stack([angles.cos(), angles.sin()])[None, :, None]


def test_margins_written_out() -> None:
    """Two cells, 90 degrees apart for the teacher and 60 for the model, which is off by 0 and 30 degrees."""
    prediction, features = unit(0, 60), 7 * unit(0, 90)
    turned, similar = math.cos(math.pi / 6), math.cos(math.pi / 3)
    for cosine_margin, structure_margin in ((0.0, 0.0), (0.1, 0.2), (0.2, 0.6)):
        cosine = max(0, 1 - cosine_margin - turned) / 2 + max(0, -cosine_margin) / 2
        structure = 2 * max(0, similar - structure_margin) / 4  # the diagonal is 1 for both
        found = MarginLoss(cosine_margin, structure_margin, 3.0, 5.0)(prediction, features)
        torch.testing.assert_close(found, torch.tensor(3 * cosine + 5 * structure))


def test_margins_by_loops_over_images_and_cells() -> None:
    """As VA-VAE's code; images do not mix."""
    generator = torch.Generator().manual_seed(0)
    prediction, features = (torch.randn(3, 4, 2, 5, generator=generator) for _ in range(2))
    pairs, cells = [], []
    for p, f in zip(prediction.flatten(2), features.flatten(2), strict=True):
        for i in range(10):
            cells.append(max(0.0, 1 - 0.5 - float(torch.cosine_similarity(p[:, i], f[:, i], 0))))
            for j in range(10):
                own, other = (torch.cosine_similarity(x[:, i], x[:, j], 0) for x in (p, f))
                pairs.append(max(0.0, float((own - other).abs()) - 0.25))
    expected = sum(cells) / len(cells) + sum(pairs) / len(pairs)
    assert abs(float(MarginLoss()(prediction, features)) - expected) < 1e-5
    assert float(MarginLoss()(features * 3, features)) == 0
    with torch.autocast('cpu', torch.bfloat16):
        assert abs(float(MarginLoss()(prediction, features)) - expected) < 1e-5


def test_smooth_l1_written_out() -> None:
    prediction, features = torch.tensor([0.0, 0.5, 3.0, -1.0])[None, :, None, None], torch.zeros(1, 4, 1, 1)
    found = SmoothL1Loss(beta=2.0, standardise=False)(prediction, features)
    torch.testing.assert_close(found, torch.tensor((0 + 0.25 / 4 + 2.0 + 1 / 4) / 4))
    many = torch.randn(2, 6, 3, 3) * 5 + 2
    standard = (many - many.mean(1, keepdim=True)) / (many.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    assert float(SmoothL1Loss()(standard, many)) < 1e-10
