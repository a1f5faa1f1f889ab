"""Published discriminators, loaded under our names, reproduce the peers' numbers, and every published key is mapped."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.published import read_manifest
from vq.core.errors import UserError
from vq.discriminators.patchgan import PatchGAN
from vq.discriminators.stylegan2 import StyleGAN2Discriminator
from vq.io.published.discriminators import patchgan_keys, stylegan2_keys
from vq.nn.act_norm import ActNorm

CLOSE = dict(rtol=1e-4, atol=2e-5)
TAMING = pytest.mark.parametrize('name', ['taming_vqlpips_disc_hinge', 'taming_vqlpips_disc_vanilla'])


def gradients_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def taming(peer) -> PatchGAN:
    model = PatchGAN(width=peer.meta['ndf'], depth=peer.meta['n_layers'])
    model.load_state_dict(patchgan_keys(peer.state), strict=True)
    return model


@TAMING
def test_taming_in_eval(golden, name):
    peer = golden(name)
    model = taming(peer).eval()
    torch.testing.assert_close(model(peer['in/image']), peer['out/logits_real_eval'], **CLOSE)
    torch.testing.assert_close(model(peer['out/reconstruction']), peer['out/logits_fake_eval'], **CLOSE)


@TAMING
def test_taming_discriminator_step(golden, name):
    """Logits, loss, a gradient and the running statistics of one training call on each batch, real images first."""
    peer = golden(name)
    model = taming(peer).train()
    real, fake = model(peer['in/image']), model(peer['out/reconstruction'])
    torch.testing.assert_close(real.mean(), peer['out/train_after_disc_logits_real_mean'], **CLOSE)
    torch.testing.assert_close(fake.mean(), peer['out/train_after_disc_logits_fake_mean'], **CLOSE)
    if peer.meta['loss'] == 'hinge':
        loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    else:
        loss = 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    torch.testing.assert_close(loss, peer['out/train_after_disc_loss'], **CLOSE)
    loss.backward()
    gradients_close(model.stem.weight.grad, peer['out/train_after_disc_grad_first_conv'])
    prefix = 'out/bn_after_disc_step/'
    expected = {key.removeprefix(prefix): peer[key] for key in peer.arrays if key.startswith(prefix)}
    assert len(expected) == 2 * peer.meta['n_layers']
    for key, value in expected.items():
        layer, leaf = int(key.split('.')[1]), key.split('.')[2]
        torch.testing.assert_close(getattr(model.blocks[layer // 3 - 1].norm, leaf), value, rtol=1e-5, atol=1e-6)


def test_stylegan2(golden):
    peer = golden('stylegan2_discriminator')
    model = StyleGAN2Discriminator(
        image_size=peer.meta['resolution'],
        channel_base=peer.meta['channel_base'],
        channel_max=peer.meta['channel_max'],
        group_size=peer.meta['mbstd_group'],
    )
    model.load_state_dict(stylegan2_keys(peer.state), strict=True)
    image = peer['in/image'].requires_grad_()
    logits = model(image)
    torch.testing.assert_close(logits, peer['out/logits_real'], **CLOSE)
    torch.testing.assert_close(model(peer['in/fake_image']), peer['out/logits_fake'], **CLOSE)
    (gradient,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    gradients_close(gradient, peer['out/grad_image_of_sum'])
    penalty = peer.meta['r1_weight'] * gradient.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(penalty, peer['out/r1_penalty'], rtol=1e-3, atol=0)
    penalty.backward()
    gradients_close(model.head.out.weight.grad, peer['out/grad_out_weight_of_r1'])
    gradients_close(model.stem.weight.grad, peer['out/grad_fromrgb_weight_of_r1'])


# keys of the published files at full size


def empty(tensors: dict[str, list[int]]) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device='meta') for key, shape in tensors.items()}


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize('name', ['taming_vqgan_imagenet_f16_1024', 'taming_vqgan_imagenet_f16_16384'])
def test_every_key_of_taming(name):
    prefix = 'loss.discriminator.'
    tensors = {key.removeprefix(prefix): s for key, s in read_manifest(name)['loss_tensors'].items() if key.startswith(prefix)}
    with torch.device('meta'):
        assert shapes(patchgan_keys(empty(tensors))) == shapes(PatchGAN().state_dict())


def test_every_key_of_stylegan2():
    published = read_manifest('serezd_stylegan2_discriminator_256')
    config = published['config']
    with torch.device('meta'):
        model = StyleGAN2Discriminator(config['resolution'], 3, config['channel_base'], config['channel_max'])
    assert shapes(stylegan2_keys(empty(published['tensors']))) == shapes(model.state_dict())
    filters = sum(16 for key in published['tensors'] if key.endswith('resample_filter'))
    assert sum(parameter.numel() for parameter in model.parameters()) == published['params'] - filters


# the maps themselves


def published_patchgan(norm: str, depth: int) -> tuple[dict[str, Tensor], PatchGAN]:
    """A state dict with the numbering of taming's constructor, of distinguishable tensors."""
    model = PatchGAN(width=2, depth=depth, norm=norm)
    step = 2 if norm == 'none' else 3  # convolution, (norm,) activation
    state = {}
    for number, (key, value) in enumerate(model.state_dict().items()):
        part, *middle = key.split('.')
        if part == 'blocks':
            layer = 2 + step * int(middle[0]) + (middle[1] == 'norm')
        else:
            layer = 0 if part == 'stem' else 2 + step * depth
        state[f'main.{layer}.{middle[-1]}'] = torch.full_like(value, number % 100)
    return state, model


@pytest.mark.parametrize('norm', ['batch', 'group', 'act', 'none'])
@pytest.mark.parametrize('depth', [1, 2, 4])
def test_patchgan_of_every_norm_and_depth(norm, depth):
    state, model = published_patchgan(norm, depth)
    renamed = patchgan_keys(state)
    assert shapes(renamed) == shapes(model.state_dict())
    for number, key in enumerate(model.state_dict()):
        assert (renamed[key] == number % 100).all()
    model.load_state_dict(renamed)
    assert all(part._ready for part in model.modules() if isinstance(part, ActNorm))


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'main.4.weight': torch.zeros(4)}, 'main.4.weight'),
        ({'main.3.strange': torch.zeros(4)}, 'main.3.strange'),
        ({'main.2.running_mean': torch.zeros(4)}, 'main.2.running_mean'),
        ({'discriminator.main.2.weight': torch.zeros(4)}, 'discriminator.main.2.weight'),
        ({'main.12.weight': torch.zeros(4)}, 'main.12.weight'),
    ],
)
def test_unknown_keys_of_patchgan(change, named):
    state, _ = published_patchgan('batch', 3)
    with pytest.raises(UserError, match=f"'{named}'") as caught:
        patchgan_keys({**state, **change})
    assert caught.value.hint
    with pytest.raises(UserError, match='convolutions'):
        patchgan_keys({'main.0.weight': torch.zeros(2, 3, 4, 4)})


def test_unknown_keys_of_stylegan2():
    good = {'b8.conv0.weight': torch.zeros(2, 2, 3, 3), 'b8.fromrgb.bias': torch.zeros(2), 'b4.out.bias': torch.zeros(1)}
    assert list(stylegan2_keys(good)) == ['blocks.0.conv.weight', 'stem.bias', 'head.out.bias']
    for key in (
        'b8.skip.bias',
        'b4.conv0.weight',
        'b4.fromrgb.weight',
        'c8.conv0.weight',
        'resample_filter',
        'b8.conv0.scale',
    ):
        with pytest.raises(UserError, match=f"'{key}'"):
            stylegan2_keys({**good, key: torch.zeros(2)})
    with pytest.raises(UserError, match=r"'b8.fromrgb.bias'"):  # the variant with skip connections
        stylegan2_keys({**good, 'b16.fromrgb.bias': torch.zeros(2)})
    with pytest.raises(UserError, match='another filter'):
        stylegan2_keys({**good, 'b8.resample_filter': torch.ones(4, 4) / 16})
