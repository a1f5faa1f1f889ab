"""The text file of a layout makes the round trip, with names and odd numbers; a damaged one says where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vq.core.errors import UserError
from vq.io.layout_text import layout_text, read_layout_text
from vq.io.layouts import read_layouts

NAMES = ('boat', 'tennis racket', 'a, b')


def test_the_round_trip(tmp_path: Path) -> None:
    boxes, categories = [[4.0, 8.0, 20.0, 30.0], [0.0, 1 / 3, 47.0, 36.5], [5.0, 5.0, 5.0, 5.0]], [1, 2, 0]
    file = tmp_path / 'layout.txt'
    file.write_text(layout_text(boxes, categories, (37, 47), NAMES))
    assert file.read_text().splitlines()[0] == f'{4 / 47!r},{8 / 37!r},{16 / 47!r},{22 / 37!r},tennis racket'
    found = read_layout_text(file, (37, 47))
    torch.testing.assert_close(torch.tensor(found['boxes']), torch.tensor(boxes))
    layout = read_layouts(file, NAMES, size=(37, 47))
    assert layout.box_categories.tolist() == [categories] and layout.boxes_mask.tolist() == [[True] * 3]
    torch.testing.assert_close(layout.boxes, torch.tensor([boxes]))
    assert layout_text(found['boxes'], found['categories'], (37, 47)) == file.read_text(), 'twice is once'
    half = read_layouts(file, NAMES, size=(74, 47))
    torch.testing.assert_close(half.boxes[0, :, 1], 2 * layout.boxes[0, :, 1])


def test_empty_lines_and_numbers(tmp_path: Path) -> None:
    file = tmp_path / 'layout.txt'
    file.write_text('\n0.5,0.5,0.25,0.25, 2\n\n')
    layout = read_layouts(file, size=(64, 64))
    assert layout.boxes.tolist() == [[[32, 32, 48, 48]]] and layout.box_categories.tolist() == [[2]]
    file.write_text('')
    assert not read_layouts(file, size=(64, 64)).boxes_mask.any()


@pytest.mark.parametrize('line', ['0.1,0.2,0.3,boat', '0.1,0.2,-0.3,0.1,boat', 'nan,0,1,1,boat', '0,0,1,1,', '0,0,1,x,boat'])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / 'layout.txt'
    file.write_text(f'0,0,1,1,boat\n{line}\n')
    with pytest.raises(UserError, match=r'line 2 of .* is'):
        read_layouts(file, NAMES, size=(64, 64))


def test_the_size_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='whose size is not known'):
        read_layouts(tmp_path / 'layout.txt', NAMES)
    with pytest.raises(UserError, match='cannot be read'):
        read_layouts(tmp_path / 'layout.txt', NAMES, size=(64, 64))
