"""Resizing on tensors equals Pillow's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vq.nn.pillow_resize import crop_centre, resize_like_pillow


@pytest.mark.parametrize('size', [(256, 256), (37, 91), (224, 300), (500, 333)])
@pytest.mark.parametrize('target', [(224, 224), (28, 42)])
def test_equals_pillow_to_a_level(size, target):
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    # rows first, as Pillow did up to 12; from 13 on the cheaper direction is first
    rows = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((target[1], size[0]), Image.Resampling.BICUBIC)
    peer = rows.resize(target[::-1], Image.Resampling.BICUBIC)
    found = resize_like_pillow(image, *target)
    difference = (found[0].permute(1, 2, 0).int() - torch.from_numpy(np.array(peer)).int()).abs()
    assert found.dtype == torch.uint8 and difference.max() <= 1
    assert (difference > 0).double().mean() < 0.01, 'ties alone'


def test_an_image_of_the_size_stays():
    image = torch.randint(0, 256, (2, 3, 28, 42), dtype=torch.uint8)
    assert torch.equal(resize_like_pillow(image, 28, 42), image)


@pytest.mark.parametrize(('size', 'box'), [((5, 8), (0, 5, 1, 6)), ((9, 4), (2, 6, 0, 4)), ((3, 3), (0, 3, 0, 3))])
def test_the_square_in_the_middle(size, box):
    image = torch.arange(size[0] * size[1]).view(1, 1, *size)
    top, bottom, left, right = box
    assert torch.equal(crop_centre(image), image[..., top:bottom, left:right])
