"""Pictures of tokens of any shape."""

from __future__ import annotations

import torch

from vq.io.pictures import token_map


def colours(picture):
    return [tuple(pixel) for pixel in picture.flatten(1).t().tolist()]


def test_one_colour_per_code_in_every_picture():
    tokens = torch.tensor([[3, 200], [200, 3]])
    picture = token_map(tokens, 8)
    assert picture.shape == (3, 8, 8)
    assert picture.dtype == torch.uint8
    assert torch.equal(picture[:, :4, :4], picture[:, 4:, 4:])
    assert len(set(colours(picture))) == 2
    assert torch.equal(token_map(torch.tensor([[200]]), 4), picture[:, :4, 4:])


def test_several_tokens_per_cell_stand_side_by_side():
    tokens = torch.randint(50, (3, 3, 4))
    picture = token_map(tokens, 6)
    assert picture.shape == (3, 6, 24)
    for index in range(4):
        assert torch.equal(picture[:, :, 6 * index : 6 * index + 6], token_map(tokens[..., index], 6))


def test_a_row_of_tokens_fills_a_square():
    picture = token_map(torch.arange(7), 3)
    assert picture.shape == (3, 3, 3)
    found = colours(picture)
    assert len(set(found[:7])) == 7
    assert found[7:] == [(255, 255, 255)] * 2
    assert torch.equal(token_map(torch.arange(9), 3), token_map(torch.arange(9).view(3, 3), 3))
