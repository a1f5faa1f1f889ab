"""Conditioners of layouts: units, nulls, and how often training drops a layout."""

from __future__ import annotations

import pytest
import torch

from vq.conditioners.layout import BoxConditioner, SegmentationConditioner
from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.denoisers.unet.layout_cells import class_map


def boxes() -> Condition:
    corners = torch.tensor([[[0.0, 0, 32, 16], [16, 8, 64, 32]], [[8, 8, 16, 16], [0, 0, 0, 0]]])
    there = torch.tensor([[True, True], [True, False]])
    return Condition(boxes=corners, box_categories=torch.tensor([[1, 2], [0, 0]]), boxes_mask=there)


def test_boxes_are_in_units_of_the_image() -> None:
    part = BoxConditioner(3, 5, image_size=(32, 64))
    layout = part(boxes(), 2).layout
    assert layout.boxes[0].tolist() == [[0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75]]
    assert layout.table is part.table.weight and layout.categories.tolist() == [[1, 2], [0, 0]]
    assert layout.there.tolist() == [[True, True], [True, False]]
    found = class_map(layout, 4, 4).unflatten(1, (4, 4))
    assert torch.equal(found[0, 3, 0], part.table.weight[3]) and torch.equal(found[0, 0, 0], part.table.weight[1])
    torch.testing.assert_close(found[0, 1, 1], part.table.weight[1:3].mean(0))


def test_a_row_without_a_condition_has_no_box() -> None:
    part = BoxConditioner(3, 5, image_size=(32, 64))
    nulled = part(boxes().without(torch.tensor([True, False])), 2).layout
    assert nulled.there.tolist() == [[False, False], [True, False]]
    for asked in (None, Condition(torch.zeros(2).long())):
        null = part(asked, 2).layout
        assert not null.there.any()
        assert torch.equal(class_map(null, 4, 4), class_map(nulled, 4, 4)[:1].expand(2, -1, -1))


def test_labels_are_nothing_where_they_are_ignored_or_dropped() -> None:
    part = SegmentationConditioner(3, 5)
    labels = torch.tensor([[[0, 1], [2, 255]], [[1, 1], [1, 1]]])
    layout = part(Condition(mask=labels), 2).layout
    assert layout.labels.tolist() == [[[0, 1], [2, 3]], [[1, 1], [1, 1]]] and layout.boxes is None
    nulled = part(Condition(mask=labels).without(torch.tensor([False, True])), 2).layout
    assert nulled.labels[1].tolist() == [[3, 3], [3, 3]] and torch.equal(nulled.labels[0], layout.labels[0])
    null = part(None, 2).layout
    assert torch.equal(class_map(null, 2, 2), part.table.weight[3].expand(2, 4, -1))


@pytest.mark.parametrize('kind', [BoxConditioner, SegmentationConditioner])
def test_training_drops_layouts_at_their_rate(kind: type) -> None:
    """Over 10,000 rows; none in evaluation."""
    part = kind(3, 5, drop=0.3, **dict(image_size=64) if kind is BoxConditioner else {}).train()
    rows = 10_000
    one = boxes().taken([0]) if kind is BoxConditioner else Condition(mask=torch.ones(1, 2, 2).long())
    whole = one.taken([0] * rows)
    layout = part(part.dropped(whole, torch.rand(rows, generator=torch.Generator().manual_seed(0))), rows).layout
    lost = ~layout.there.any(1) if kind is BoxConditioner else (layout.labels == 3).flatten(1).all(1)
    assert abs(lost.float().mean() - 0.3) < 0.015
    assert part.eval().dropped(whole, torch.zeros(rows)) is whole


def test_settings_that_do_not_fit_say_so() -> None:
    with pytest.raises(ConfigError, match='labels is 0'):
        BoxConditioner(0, 5, image_size=64)
    with pytest.raises(ConfigError, match='ignored is 2'):
        SegmentationConditioner(3, 5, ignored=2)
