"""Maps between latents of first and second stages: exact inverses, specs, gradients, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vq.core.errors import ConfigError, UserError
from vq.core.specs import LatentSpec
from vq.nn.latent_maps import Affine
from vq.registries import VQLatentMapRegistry

CHAIN = dict(
    type='Chain',
    maps=[
        dict(type='DropClassToken', count=2),
        dict(type='Reshape', after=(4, 6)),
        dict(type='SpaceToDepth', factor=2),
        dict(type='Affine', mean=0.5, deviation=2.0),
        dict(type='Reshape', before=(2, 3)),
        dict(type='AppendClassToken', channels=12, trainable=True),
    ],
)


def build(settings: dict[str, Any]) -> Any:
    built = VQLatentMapRegistry.build(settings)
    with torch.device('meta'):
        other = VQLatentMapRegistry.build(settings)
    assert {key: value.shape for key, value in other.state_dict().items()} == {
        key: value.shape for key, value in built.state_dict().items()
    }
    return built


@pytest.mark.parametrize(
    ('settings', 'cells', 'expected'),
    [
        (dict(type='Reshape', before=(4, 6)), (4, 6), (6, 24)),
        (dict(type='Reshape', after=(2, 3)), (6,), (6, 2, 3)),
        (dict(type='Reshape', before=(2, 3), after=(3, 2)), (2, 3), (6, 3, 2)),
        (dict(type='SpaceToDepth', factor=3), (3, 9), (54, 1, 3)),
        (dict(type='SpaceToDepth'), (2, 4, 6), (48, 1, 2, 3)),
        (dict(type='SpaceToDepth', factor=4), (8,), (24, 2)),
        (dict(type='DepthToSpace', factor=6), (5,), (1, 30)),
        (dict(type='AppendClassToken', count=2), (5,), (6, 7)),
        (dict(type='AppendClassToken', vector=[1.0] * 6), (5,), (6, 6)),
    ],
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_inverses_are_exact(
    settings: dict[str, Any], cells: tuple[int, ...], expected: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    part, latent = build(settings), LatentSpec(6, cells, 'channel')
    z = torch.randn(2, *latent.shape).to(dtype)
    made = part(z)
    assert part.spec(latent).shape == expected == made.shape[1:] and part.spec(latent).normalized == 'channel'
    assert made.dtype == dtype and torch.equal(part.inverse(made), z)
    assert torch.equal(part(part.inverse(made)), made)


def test_blocks_are_ordered_as_in_torch() -> None:
    z = torch.randn(2, 8, 6, 4)
    down, up = build(dict(type='SpaceToDepth')), build(dict(type='DepthToSpace'))
    assert torch.equal(down(z), F.pixel_unshuffle(z, 2)) and torch.equal(up(z), F.pixel_shuffle(z, 2))


@pytest.mark.parametrize('shape', [(), (3,), (3, 4, 5)])
@pytest.mark.parametrize('trainable', [False, True])
def test_affine_by_statistics(shape: tuple[int, ...], trainable: bool) -> None:
    torch.manual_seed(0)
    part = build(dict(type='Affine', shape=shape, trainable=trainable))
    z = torch.randn(64, 3, 4, 5) * 7 - 3
    assert torch.equal(part(z), z)
    axes = {0: (0, 1, 2, 3), 1: (0, 2, 3), 3: (0,)}[len(shape)]
    assert isinstance(part, Affine)
    part.put(z.mean(axes), z.std(axes))
    made = part(z)
    torch.testing.assert_close(made.mean(axes), torch.zeros(shape), rtol=0, atol=1e-5)
    torch.testing.assert_close(made.std(axes), torch.ones(shape))
    assert ((part.inverse(made) - z).abs() / z.abs().clamp(min=1)).max() <= 1e-6
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(part(z), made)
    made.sum().backward() if trainable else None
    assert [name for name, value in part.named_parameters() if value.grad is not None] == (
        ['mean', 'log_deviation'] if trainable else []
    )


def test_affine_has_the_given_values() -> None:
    part = build(dict(type='Affine', mean=[1.0, 2.0], deviation=4.0))
    z = torch.randn(3, 2, 5)
    torch.testing.assert_close(part(z), (z - torch.tensor([1.0, 2.0])[:, None]) / 4)


def test_dropped_class_tokens_come_back_as_the_stored_vector() -> None:
    z = torch.randn(3, 2, 7)
    for settings, front in ((dict(), [0.0, 0.0]), (dict(vector=[3.0, 4.0]), [3.0, 4.0])):
        part = build(dict(type='DropClassToken', **settings))
        assert torch.equal(part(z), z[:, :, 1:])
        back = part.inverse(part(z))
        assert torch.equal(back[:, :, 1:], z[:, :, 1:]) and back[1, :, 0].tolist() == front
    learned = build(dict(type='DropClassToken', channels=2, trainable=True))
    learned.inverse(z).sum().backward()
    assert learned.token.grad.tolist() == [3.0, 3.0]


def test_a_chain_of_all() -> None:
    torch.manual_seed(0)
    part, latent = build(CHAIN), LatentSpec(3, (26,))
    z = torch.randn(2, *latent.shape)
    made = part(z)
    assert part.spec(latent) == LatentSpec(12, (7,)) and made.shape == (2, 12, 7)
    z[:, :, :2] = 0  # dropped: zeros come back
    torch.testing.assert_close(part.inverse(made), z, rtol=1e-6, atol=1e-6)
    assert list(part.state_dict()) == ['maps.3.mean', 'maps.3.log_deviation', 'maps.5.token']


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(type='Reshape'), 'neither before nor after'),
        (dict(type='Reshape', before=(2, 3), after=(5,)), '2 x 3 cells to 5'),
        (dict(type='Reshape', before=(2, 3)), 'takes 2 x 3 cells, and the latent has 4 x 4'),
        (dict(type='SpaceToDepth', factor=0), 'the factor is 0'),
        (dict(type='SpaceToDepth', factor=3), '4 x 4 cells do not divide into blocks of 3'),
        (dict(type='DepthToSpace', factor=2), '6 channels do not divide into blocks of 4'),
        (dict(type='Affine', deviation=0.0), 'not positive'),
        (dict(type='Affine', mean=[float('nan')]), 'not finite'),
        (dict(type='Affine', mean=[0.0, 1.0], shape=(3,)), r'of the shape \(3,\) has 2 means'),
        (dict(type='Affine', mean=[0.0, 1.0]), r'of the shape \(2,\) on latents of \(6, 4, 4\)'),
        (dict(type='DropClassToken'), 'takes a sequence, and the latent has 4 x 4 cells'),
        (dict(type='DropClassToken', count=0), 'count of 0'),
        (dict(type='AppendClassToken', trainable=True), 'knows no channels'),
        (
            dict(type='Chain', maps=[dict(type='Reshape', before=(4, 4)), dict(type='AppendClassToken', channels=5)]),
            'vector of 5 channels, and the latent 6',
        ),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build(settings).spec(LatentSpec(6, (4, 4)))
    assert caught.value.hint
    with pytest.raises(UserError, match='statistics of the shape'):
        Affine().put(torch.zeros(2), torch.ones(2))
