"""Regions of labels: sets of touching pixels as scipy finds them, and the boxes of digits on a canvas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import find_objects, label

from vq.data.datasets.digits_canvas import NOTHING, DigitsCanvasDataset
from vq.data.regions import components, regions_of


@pytest.mark.parametrize('share', [0.2, 0.45, 0.7])
def test_components_and_boxes_are_those_of_scipy(share: float) -> None:
    """Of noise, whose sets wind through the image; pixels touch at corners, too."""
    inside = np.random.default_rng(0).random((3, 19, 23)) < share
    found = components(torch.from_numpy(inside)).numpy()
    regions = regions_of(torch.from_numpy(np.where(inside, 0, 1)), 1, smallest=1)
    for image, numbers, mine in zip(inside, found, regions, strict=True):
        expected, count = label(image, np.ones((3, 3)))
        assert len(np.unique(numbers[image])) == count and not numbers[~image].any()
        assert all(len(np.unique(numbers[expected == number])) == 1 for number in range(1, count + 1))
        boxes = [(across.start, down.start, across.stop, down.stop) for down, across in find_objects(expected)]
        assert sorted(map(tuple, mine.boxes.tolist())) == sorted(boxes)


def test_a_region_has_the_class_of_most_of_its_pixels_and_specks_are_left_out() -> None:
    labels = torch.full((2, 8, 10), 3)
    labels[0, 1:5, 2:6], labels[0, 4, 2:6], labels[0, 7, 9] = 2, 0, 1
    one, none = regions_of(labels, 3, smallest=2)
    assert one.boxes.tolist() == [[2, 1, 6, 5]] and one.categories.tolist() == [2]
    assert none.boxes.shape == (0, 4) and none.categories.shape == (0,)
    both = regions_of(labels, 3, smallest=1)[0]
    assert both.boxes.tolist() == [[2, 1, 6, 5], [9, 7, 10, 8]] and both.categories.tolist() == [2, 1], 'from the top'


def test_true_labels_of_a_canvas_give_its_boxes() -> None:
    """Of strokes that the threshold of the labels does not part."""
    dataset, whole = DigitsCanvasDataset('validation'), 0
    for index in range(40):
        canvas = dataset.canvas(index)
        labels = torch.from_numpy(np.where(canvas.mask == NOTHING, 10, canvas.mask))[None]
        (found,) = regions_of(labels, 10)
        true = {(*box, category) for box, category in zip(canvas.boxes.tolist(), canvas.categories.tolist(), strict=True)}
        whole += {
            (*box, category) for box, category in zip(found.boxes.tolist(), found.categories.tolist(), strict=True)
        } == true
    assert whole >= 36
