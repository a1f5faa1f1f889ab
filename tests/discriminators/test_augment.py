"""Differentiable augmentation: each change against its definition, and its gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.tasks.recipes import SmallDiscriminator
from vq.core.errors import ConfigError
from vq.discriminators.augment import AugmentedDiscriminator

NONE = dict(brightness=0.0, saturation=0.0, contrast=0.0, translation=0.0, cutout=0.0)


def changed(image: Tensor, **settings: float) -> Tensor:
    values: dict[str, Any] = {**NONE, **settings}
    torch.manual_seed(0)
    return AugmentedDiscriminator(SmallDiscriminator(), **values).augment(image)


def images(height: int = 9, width: int = 14) -> Tensor:
    return torch.rand(6, 3, height, width, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9


def test_strength_zero_and_eval_are_the_identity() -> None:
    image = images()
    assert torch.equal(changed(image), image)
    assert torch.equal(changed(image, brightness=1.0, translation=0.3, cutout=0.5, probability=0.0), image)
    network = AugmentedDiscriminator(SmallDiscriminator())
    assert not torch.equal(network(image), network.discriminator(image))
    assert torch.equal(network.eval()(image), network.discriminator(image))


def test_colours() -> None:
    """One change alone leaves what it must leave: differences, the mean of channels, the mean of the image."""
    image = images()
    difference = changed(image, brightness=0.4) - image
    first = difference[:, :1, :1, :1]
    torch.testing.assert_close(difference, first.expand_as(difference))
    assert first.abs().max() <= 0.4 and len(first.flatten().unique()) == 6, 'each image has its own'
    for settings, dims in ((dict(saturation=0.8), (1,)), (dict(contrast=0.3), (1, 2, 3))):
        found, mean = changed(image, **settings), image.mean(dims, keepdim=True)
        torch.testing.assert_close(found.mean(dims, keepdim=True), mean)
        factor = (found - mean) / (image - mean)
        torch.testing.assert_close(factor, factor[:, :1, :1, :1].expand_as(factor), rtol=1e-3, atol=1e-3)
        assert (factor[:, 0, 0, 0] - 1).abs().max() <= next(iter(settings.values())) + 1e-3
        assert len(factor[:, 0, 0, 0].unique()) == 6


def test_shifts_are_padded_with_zeros() -> None:
    image, seen = images(), set()
    found = changed(image, translation=0.25)  # up to 2 rows and 3 or 4 columns
    padded = F.pad(image, (4, 4, 3, 3))
    for index in range(6):
        places = [
            (down, right)
            for down in range(-3, 4)
            for right in range(-4, 5)
            if torch.equal(found[index], padded[index, :, 3 - down : 12 - down, 4 - right : 18 - right])
        ]
        assert len(places) == 1
        seen.add(places[0])
        assert abs(places[0][0]) <= 2 and abs(places[0][1]) <= 4
    assert len(seen) > 2


def test_a_hole_is_a_rectangle() -> None:
    image = images()
    zero = (changed(image, cutout=0.5) == 0).all(1)
    for one in zero:
        rows, columns = one.any(1), one.any(0)
        assert torch.equal(one, rows[:, None] & columns) and 2 <= rows.sum() <= 4 and 3 <= columns.sum() <= 7
        for line in (rows, columns):
            assert line.long().diff().abs().sum() <= 2, 'one piece'
    assert len(zero.flatten(1).unique(dim=0)) > 2


def test_gradients_reach_the_images() -> None:
    """The exact derivative; of a shift and a hole it is 1 where a pixel is still seen and 0 elsewhere."""
    image = images(5, 6).double()[:2].requires_grad_()
    torch.manual_seed(3)
    network = AugmentedDiscriminator(SmallDiscriminator(), translation=0.4, cutout=0.4)
    state = torch.get_rng_state()

    def same(x: Tensor) -> Tensor:
        torch.set_rng_state(state)
        return network.augment(x)

    assert same(image).requires_grad
    direction = torch.randn_like(image)
    (gradient,) = torch.autograd.grad((same(image) * 1.0).square().sum(), image)
    step = 1e-3
    numeric = (same(image + step * direction).square().sum() - same(image - step * direction).square().sum()) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-3, atol=1e-3, check_dtype=False)
    other = images().requires_grad_()
    (mask,) = torch.autograd.grad(changed(other, translation=0.25, cutout=0.3).sum(), other)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert float(mask.sum()) == float((changed(other, translation=0.25, cutout=0.3) != 0).sum())


def test_the_same_stream_gives_the_same_images_in_half_precision_too() -> None:
    image, settings = images(), dict(brightness=0.4, saturation=0.5, contrast=0.2, translation=0.2, cutout=0.3)
    assert torch.equal(changed(image, **settings), changed(image, **settings))
    assert changed(image.bfloat16(), **settings).dtype == torch.float32


@pytest.mark.parametrize('settings', [dict(brightness=-0.1), dict(translation=1.5), dict(probability=-1.0)])
def test_strengths_without_a_meaning_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match='AugmentedDiscriminator has brightness'):
        AugmentedDiscriminator(SmallDiscriminator(), **settings)
