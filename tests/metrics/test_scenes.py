"""SceneFID and CAS in closed form on fixed features; crops and boxes found again, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from vq.core.conditions import Condition
from vq.core.errors import UserError
from vq.data.regions import Regions
from vq.interfaces import FeatureNetwork, Features
from vq.metrics.crops import crops_of
from vq.metrics.layout import box_overlaps, found_again
from vq.metrics.scenes import classification_accuracy_score, crop_features, scene_fid


class Mean(FeatureNetwork):
    """The mean of each channel."""

    dimension = 3

    def forward(self, image: torch.Tensor) -> Features:
        return Features(image.float().mean((2, 3)))


def layout() -> Condition:
    boxes = torch.tensor([[[0.0, 0, 4, 4], [4.5, 4, 8, 7.2]], [[2, 0, 6, 8], [0, 0, 0, 0]]])
    there = torch.tensor([[True, True], [True, False]])
    return Condition(boxes=boxes, box_categories=torch.tensor([[1, 0], [2, 0]]), boxes_mask=there)


def test_crops_are_those_of_the_boxes_that_are_there() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(2, 3, -1, -1)
    given = layout()
    crops = crops_of(image, given.boxes, given.boxes_mask, 4)
    assert crops.shape == (3, 3, 4, 4) and torch.equal(crops[0], image[0, :, :4, :4])
    assert torch.equal(crops[1], image[0, :, 4:8, 4:8]), 'corners are rounded outwards'
    tall = crops_of(image[1:], given.boxes[1:], given.boxes_mask[1:], 8, keep_shape=True)[0]
    assert torch.equal(tall[:, :, 2:6], image[1, :, :, 2:6]) and not tall[:, :, [0, 1, 6, 7]].any()
    features = crop_features(Mean(), image, given, 4)
    torch.testing.assert_close(features[0], image[0, :, :4, :4].float().mean((1, 2)))
    with pytest.raises(UserError, match='no box'):
        crop_features(Mean(), image, Condition(boxes=given.boxes, boxes_mask=given.boxes_mask & False))


def test_scene_fid_of_two_gaussians() -> None:
    """|m - n|^2 + sum (s - t)^2 of independent features, exact as moments are: here of two points a feature."""
    real = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-2.0, 2.0)])
    made = torch.tensor([[a, b] for a in (0.0, 6.0) for b in (1.0, 3.0)])
    scale = (4 / 3) ** 0.5  # deviations of 4 samples, unbiased
    expected = 3**2 + 2**2 + scale**2 * ((3 - 1) ** 2 + (1 - 2) ** 2)
    assert scene_fid(real, made) == pytest.approx(expected, rel=1e-9)
    assert scene_fid(real, real) == pytest.approx(0, abs=1e-9)


def test_cas_is_that_of_ridge_regression_on_drawn_crops() -> None:
    """Of scikit-learn. Drawn crops of exchanged classes teach the wrong ones."""
    stream = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 5, generator=stream) * 2
    asked, true = (torch.arange(60) % 3, torch.arange(45) % 3)
    made = centres[asked] + torch.randn(60, 5, generator=stream)
    real = centres[true] + torch.randn(45, 5, generator=stream)
    x = ((made - made.mean(0)) / made.std(0, correction=0)).double().numpy()
    machine = Ridge(alpha=60 * 1e-3).fit(x, np.eye(3)[asked])
    named = machine.predict(((real - made.mean(0)) / made.std(0, correction=0)).double().numpy()).argmax(1)
    expected = (named == true.numpy()).mean()
    assert classification_accuracy_score(made, asked, real, true, 3) == pytest.approx(expected)
    assert expected > 0.8 and classification_accuracy_score(made, (asked + 1) % 3, real, true, 3) < 0.2
    exact = classification_accuracy_score(centres[asked], asked, centres[true], true, 3)
    assert exact == 1 and classification_accuracy_score(centres[asked], (asked + 1) % 3, centres[true], true, 3) == 0
    with pytest.raises(UserError, match='0 drawn and 45 true'):
        classification_accuracy_score(made[:0], asked[:0], real, true, 3)


def test_overlaps_and_boxes_that_are_found_again() -> None:
    one, other = torch.tensor([[0.0, 0, 4, 4], [1, 1, 1, 3]]), torch.tensor([[2.0, 0, 6, 4], [0, 0, 4, 4]])
    torch.testing.assert_close(box_overlaps(one, other), torch.tensor([[8 / 24, 1.0], [0, 0]]).double())
    boxes = [torch.tensor([[0, 0, 4, 3], [4, 4, 8, 8]]), torch.tensor([[2, 0, 6, 8]])]
    right = [Regions(boxes[0], torch.tensor([1, 2])), Regions(boxes[1], torch.tensor([2]))]
    assert found_again(right, layout()) == pytest.approx(2 / 3), 'one has the wrong class'
    twice = Condition(boxes=torch.zeros(1, 2, 4) + torch.tensor([0, 0, 4, 4.0]), box_categories=torch.ones(1, 2).long())
    twice.boxes_mask = torch.ones(1, 2, dtype=torch.bool)
    assert found_again([Regions(boxes[0][:1], torch.tensor([1]))], twice) == 0.5, 'a region answers for one box'
    none = Condition(boxes=twice.boxes, box_categories=twice.box_categories, boxes_mask=twice.boxes_mask & False)
    assert np.isnan(found_again([Regions(boxes[0][:0], torch.tensor([]).long())], none))
