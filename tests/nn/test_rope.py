"""Rotary positions against complex numbers, and their purpose: dot products depend on relative positions only."""

from __future__ import annotations

import copy

import pytest
import torch

from vq.nn.rope import RotaryTable, rotary_grid, rotary_line, rotate


def test_line_is_the_product_with_a_complex_number():
    x = torch.randn(2, 7, 3, 10, dtype=torch.float64)
    angles = torch.arange(7.0, dtype=torch.float64)[:, None] * 10000 ** (-torch.arange(5.0, dtype=torch.float64) / 5)
    turned = torch.view_as_complex(x.unflatten(-1, (5, 2))) * torch.polar(torch.ones_like(angles), angles)[:, None]
    torch.testing.assert_close(
        rotate(x, rotary_line(7, 10)), torch.view_as_real(turned).flatten(-2), rtol=1e-5, atol=1e-5, check_dtype=False
    )


def test_dot_products_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 8)
    table = rotary_line(20, 8)
    dots = [(rotate(q, table[i : i + 1]) * rotate(k, table[i + 3 : i + 4])).sum() for i in (0, 5, 16)]
    torch.testing.assert_close(dots[0], dots[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(dots[0], dots[2], rtol=0, atol=1e-5)


def test_grid_has_rows_first_and_columns_second():
    height, width, channels = 3, 5, 12
    table = rotary_grid(height, width, channels).view(height, width, channels // 2, 2)
    rows, columns = rotary_line(height, channels // 2), rotary_line(width, channels // 2)
    for row in range(height):
        for column in range(width):
            assert torch.equal(table[row, column, :3], rows[row])
            assert torch.equal(table[row, column, 3:], columns[column])


@pytest.mark.parametrize('grid', [None, (2, 3)])
def test_positions_of_the_prefix_vanish(grid):
    rope = RotaryTable(8, 8, grid, prefix=2)
    y = rope(torch.randn(1, 8, 1, 8))
    assert not y[:, :2].any() and y[:, 2:].all()
    rest = rotary_line(6, 8) if grid is None else rotary_grid(2, 3, 8)
    assert torch.equal(rope.table[2:], rest)


def test_start_cuts_the_table():
    rope = RotaryTable(9, 8)
    x = torch.randn(2, 9, 3, 8)
    assert torch.equal(rope(x)[:, 4:6], rope(x[:, 4:6], start=4))


def test_stays_in_fp32_and_comes_back_from_the_meta_device():
    rope = RotaryTable(9, 8, (2, 4), prefix=1)
    before = rope.table.clone()
    x = torch.randn(1, 9, 2, 8)
    half = copy.deepcopy(rope).to(torch.bfloat16)
    assert torch.equal(half.table, before)
    assert half(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(half(x.bfloat16()), rope(x.bfloat16().float()).bfloat16())
    with torch.device('meta'):
        far = RotaryTable(9, 8, (2, 4), prefix=1)
    assert far.table.is_meta
    assert torch.equal(far.to_empty(device='cpu').table, before)
    assert not rope.state_dict()


def test_a_grid_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match='do not fit a grid'):
        RotaryTable(9, 8, (2, 3), prefix=1)
    with pytest.raises(ValueError, match='pairs'):
        rotary_grid(2, 2, 6)
