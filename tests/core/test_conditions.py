"""What images are learned and drawn for: the record, a conditioner of boxes, layouts from a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.core.errors import UserError
from vq.data.collate import collate
from vq.interfaces import Sample
from vq.interfaces.conditions import Asked, Conditioned, Conditioner
from vq.io.layouts import read_layouts
from vq.tasks.asked import condition_of_classes


class Boxes(Conditioner):
    """Boxes and their categories as a sequence; a row without a condition is one learned entry."""

    kind = 'layout'

    def __init__(self, categories: int, width: int, drop: float) -> None:
        super().__init__()
        self.category, self.place, self.drop = nn.Embedding(categories, width), nn.Linear(4, width), drop
        self.null = nn.Parameter(torch.randn(width))

    def forward(self, condition: Condition | None, rows: int) -> Conditioned:
        if condition is None or condition.boxes is None:
            return Conditioned(sequence=self.null.expand(rows, 1, -1), sequence_mask=torch.ones(rows, 1).bool())
        entries, there = self.category(condition.box_categories) + self.place(condition.boxes), condition.boxes_mask
        empty = ~there.any(1) if condition.null is None else condition.null | ~there.any(1)
        entries = torch.where(empty[:, None, None], self.null, entries)
        first = torch.arange(there.shape[1]) == 0
        return Conditioned(sequence=entries, sequence_mask=torch.where(empty[:, None], first, there))


def batch_of_boxes() -> Condition:
    counts = [2, 0, 3, 1]
    samples = []
    for number, count in enumerate(counts):
        corners = np.arange(4 * count, dtype=np.float32).reshape(count, 4) + np.array([0, 0, 9, 9])
        image = np.zeros((8, 8, 3), np.uint8)
        boxes = {'boxes': corners, 'box_categories': np.arange(count)}
        samples.append(Sample(image=image, id=str(number), category=number, **boxes))
    return Condition.of(collate(samples))


def pooled(found: Conditioned) -> Tensor:
    """Mean of the entries that are there."""
    mask = found.sequence_mask[..., None].float()
    return (found.sequence * mask).sum(1) / mask.sum(1)


def test_ragged_boxes_condition_a_network_and_padding_has_no_part_in_it() -> None:
    torch.manual_seed(0)
    condition, part = batch_of_boxes(), Boxes(5, 6, 0.0)
    assert len(condition) == 4 and condition.boxes.shape == (4, 3, 4)
    found = pooled(part(condition, 4))
    corners = condition.boxes[2]
    expected = (part.category(torch.arange(3)) + part.place(corners)).mean(0)
    torch.testing.assert_close(found[2], expected)
    torch.testing.assert_close(found[1], part.null)  # an image without a box
    noisy = condition.boxes.clone()
    noisy[~condition.boxes_mask] = 1e6
    condition.boxes = noisy
    torch.testing.assert_close(pooled(part(condition, 4)), found)
    assert torch.equal(pooled(part(None, 3)), part.null.expand(3, -1))


def test_rows_lose_their_condition_in_training_at_their_rate() -> None:
    part = Boxes(5, 6, 0.25).train()
    condition = Condition(torch.zeros(4000, dtype=torch.int64))
    numbers = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    dropped = part.dropped(condition, numbers)
    assert torch.equal(dropped.null, numbers < 0.25)
    assert abs(dropped.null.float().mean() - 0.25) < 0.03 and condition.null is None
    assert part.eval().dropped(condition, numbers) is condition


def test_guidance_doubles_every_field() -> None:
    condition = batch_of_boxes()
    condition.text = ['a', 'b', 'c', 'd']
    both = condition.without(torch.tensor([False, True, False, False])).doubled()
    assert len(both) == 8 and both.text == ['a', 'b', 'c', 'd'] * 2
    assert torch.equal(both.boxes[:4], both.boxes[4:]) and torch.equal(both.category, condition.category.repeat(2))
    assert both.null.tolist() == [False, True, False, False, True, True, True, True]
    assert both.to('meta').boxes.is_meta


def test_layouts_of_a_file(tmp_path: Path) -> None:
    rows = [{'boxes': [[1, 2, 3, 4.5], [0, 0, 9, 9]], 'categories': ['boat', 2]}, {'boxes': [], 'categories': []}]
    (tmp_path / 'a.json').write_text(json.dumps(rows))
    found = read_layouts(tmp_path / 'a.json', ('tree', 'boat', 'cat'))
    assert found.boxes.tolist() == [[[1, 2, 3, 4.5], [0, 0, 9, 9]], [[0] * 4] * 2]
    assert found.box_categories.tolist() == [[1, 2], [0, 0]] and found.boxes_mask.tolist() == [[True] * 2, [False] * 2]


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('[]', 'has no layout'),
        ('{"boxes": [[1, 2, 3]], "categories": [0]}', r'layout 0 of .* has the box \[1, 2, 3\]'),
        ('{"boxes": [[3, 2, 1, 4]], "categories": [0]}', r'has the box \[3, 2, 1, 4\]'),
        ('{"boxes": [[1, 2, 3, 4]], "categories": []}', 'no boxes with a category each'),
        ('{"boxes": [[1, 2, 3, 4]], "categories": ["bot"]}', "no class 'bot'; did you mean 'boat'"),
        ('{"boxes": [[1, 2, 3, 1e999]], "categories": [0]}', 'has the box'),
        ('[[1]]', 'no boxes with a category each'),
        ('{', 'cannot be read'),
    ],
)
def test_bad_layouts_say_where(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / 'a.json').write_text(content)
    with pytest.raises(UserError, match=words):
        read_layouts(tmp_path / 'a.json', ('boat',))


def test_a_generator_of_classes_takes_classes_alone() -> None:
    device = torch.device('cpu')
    assert condition_of_classes(Asked((2, 0)), 3, [0, 1, 2], device).category.tolist() == [2, 0, 2]
    assert condition_of_classes(Asked(), 3, range(4), device).category.tolist() == [0, 1, 2, 0]
    assert condition_of_classes(Asked(), 0, range(4), device) is None
    for asked, words in ((Asked(text=['a cat']), 'a text is asked for'), (Asked(layout=Condition()), 'a layout is asked for')):
        with pytest.raises(UserError, match=words):
            condition_of_classes(asked, 3, [0], device)
    with pytest.raises(UserError, match=r'classes \[3\] are requested, and the generator has 3'):
        condition_of_classes(Asked((1, 3)), 3, [0], device)
