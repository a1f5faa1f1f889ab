"""The representation autoencoder: what it trains, its noise, its specs, its errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vq.core.check import find_problems
from vq.core.errors import ConfigError, UserError
from vq.registries import VQModelRegistry

TEACHER = dict(type='DINOv2Teacher', dimension=16, depth=2, heads=2, image_size=28)
DECODER = dict(type='MAEDecoder', dim=8, depth=1, heads=2, grid=2)


def config(decoder: dict[str, Any] = DECODER, **settings: Any) -> dict[str, Any]:
    noise = dict(type='GaussianNoise', tau=0.8)
    encoder = dict(type='RepresentationEncoder', teacher=TEACHER, downsampling=16, **settings)
    return dict(type='RepresentationAutoencoder', encoder=encoder, decoder=decoder, perturbation=noise)


def build(settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    assert list(find_problems(VQModelRegistry, settings, 'model')) == []
    with torch.device('meta'):
        VQModelRegistry.build(settings, 'model')
    return VQModelRegistry.build(settings, 'model')


def images(height: int = 32, width: int = 48) -> Tensor:
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_settings_of_the_decoder_follow_from_the_encoder() -> None:
    model = build(config())
    assert (model.decoder.in_channels, model.decoder.patch) == (16, 16)
    torch.testing.assert_close(model.decoder.shift.flatten(), torch.tensor([0.485, 0.456, 0.406]) * 2 - 1)
    torch.testing.assert_close(model.decoder.scale.flatten(), torch.tensor([0.229, 0.224, 0.225]) * 2)
    with pytest.raises(ConfigError, match='patch is 8 in the config'):
        VQModelRegistry.build(config(dict(DECODER, patch=8)), 'model')


def test_latents_are_disturbed_in_training_only() -> None:
    model, image = build(config()), images()
    made, latent = model.eval()(image)
    assert latent.mean.shape == (3, *model.spec((32, 48)).latent.shape) == (3, 16, 2, 3) and made.shape == image.shape
    z, tokens, losses = model.code(latent)
    assert z is latent.mean and tokens is None and losses == {}
    assert model.perturbed(z, latent) is z
    noise = model.train().perturbed(z, latent) - z
    assert (noise.flatten(1).std(1) > 0).all() and not torch.equal(model.perturbed(z, latent), model.perturbed(z, latent))
    wide = torch.zeros(4000, 16, 2, 3)
    drawn = model.perturbation(wide).flatten(1).std(1)  # of each image: uniform between 0 and tau
    assert drawn.max() < 0.8 * 1.4 and drawn.mean().item() == pytest.approx(0.4, abs=0.02)


@pytest.mark.slow
def test_gradients_reach_the_decoder_and_a_teacher_that_is_trained() -> None:
    for trained in (False, True):
        model = build(config(train_teacher=trained)).train()
        for context in (torch.autocast('cpu', enabled=False), torch.autocast('cpu', dtype=torch.bfloat16)):
            model.zero_grad()
            with context:
                made, _ = model(images())
            assert made.dtype == torch.float32
            made.square().mean().backward()
            there = {name for name, value in model.named_parameters() if value.grad is not None}
            assert there == {name for name, value in model.named_parameters() if value.requires_grad}
            assert any('teacher' in name for name in there) == trained


def test_statistics_make_unit_variance() -> None:
    model = build(config()).eval()
    z = model.encode(images()).mean
    model.statistics.put(z.mean((0, 2, 3)), z.std((0, 2, 3)))
    seen = model.normalize(z)
    torch.testing.assert_close(seen.std((0, 2, 3)), torch.ones(16))
    torch.testing.assert_close(model.denormalize(seen), z)
    assert model.spec((32, 32)).latent.normalized == 'channel'


def test_what_it_does_not_have() -> None:
    model = build(config())
    for ask in (lambda: model.tokenize(images()), lambda: model.lookup(torch.zeros(1)), lambda: model.token_spec((32, 32))):
        with pytest.raises(UserError, match='is continuous'):
            ask()
    with pytest.raises(UserError, match='do not divide into cells of 16 pixels'):
        model.encode(images(30, 32))
    wrong = dict(type='MAEDecoder', in_channels=8, dim=8, depth=1, heads=2, grid=2)
    with pytest.raises(ConfigError, match='the encoder gives 16 channels and the decoder takes 8'):
        VQModelRegistry.build(config(wrong), 'model')
    narrow = dict(type='ViTDecoder', in_channels=16, patch=8, dim=8, depth=1, heads=2)
    with pytest.raises(ConfigError, match='patch is 8'):
        VQModelRegistry.build(config(narrow), 'model')
    conv = dict(type='ConvDecoder', width=4, multipliers=(1, 1), residual_blocks=1, attention_levels=())
    with pytest.raises(ConfigError, match='16 pixels a side, and the decoder makes 2'):
        VQModelRegistry.build(config(conv), 'model')
