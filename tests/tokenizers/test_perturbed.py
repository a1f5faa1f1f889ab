"""Tokenizers with a perturbation between encoder and decoder: in training only, and without a trace where there is none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from vq.core.errors import ConfigError
from vq.core.records import Batch
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.registries import VQModelRegistry, VQTaskRegistry
from vq.tasks.image_tokenization.features import FeatureCoding
from vq.tokenizers.hashing import tokens_hash

NETWORK = dict(width=4, multipliers=(1, 2), residual_blocks=1, attention_levels=(), refine=False, norm_groups=2)
MASKS = dict(type='PerturbationChain', parts=[dict(type='TokenMasking'), dict(type='GaussianMix', gamma=0.5)])


def vqgan(quantizer: Any = None) -> dict[str, Any]:
    return dict(
        type='VQGAN',
        encoder=dict(type='ConvEncoder', out_channels=8, **NETWORK),
        quantizer=quantizer or dict(type='VectorQuantizer', codebook_size=16, embedding_dim=3),
        post_encode=dict(type='ConvConnector'),
        decoder=dict(type='ConvDecoder', **NETWORK),
        pre_decode=dict(type='ConvConnector'),
    )


def kl(connected: bool = True) -> dict[str, Any]:
    config = dict(
        type='KLAutoencoder',
        encoder=dict(type='ConvEncoder', out_channels=6, **NETWORK),
        decoder=dict(type='ConvDecoder', in_channels=3, **NETWORK),
    )
    return {**config, 'pre_decode': dict(type='ConvConnector')} if connected else config


def vqkd() -> dict[str, Any]:
    return dict(
        type='VQKD',
        encoder=dict(type='ConvEncoder', out_channels=3, **NETWORK),
        quantizer=dict(type='VectorQuantizer', codebook_size=16, embedding_dim=3),
        feature_decoder=dict(type='ViTFeatureDecoder', out_channels=5, grid=4, dim=8, depth=1, heads=2),
    )


def with_decoder() -> dict[str, Any]:
    frozen = dict(type='FrozenTokenizer', tokenizer=vqgan(), image_size=8)
    return dict(type='TokenizerWithDecoder', frozen=frozen, decoder=dict(type='ConvDecoder', in_channels=3, **NETWORK))


EVERY = [vqgan(), kl(), kl(connected=False), vqkd(), with_decoder()]
NAMES = ['vqgan', 'kl', 'kl without connector', 'vqkd', 'with decoder']
TASKS = dict(VQGAN='ImageTokenization', KLAutoencoder='ImageTokenization', TokenizerWithDecoder='ImageReconstruction')


def build(config: dict[str, Any], **more: Any) -> Any:
    torch.manual_seed(0)
    return VQModelRegistry.build(copy.deepcopy({**config, **more}), 'model')


def images() -> torch.Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize('config', EVERY, ids=NAMES)
def test_only_training_sees_it(config: dict[str, Any]) -> None:
    plain, model = build(config), build(config, perturbation=MASKS)
    vector = 'perturbation.parts.0.vector'
    assert model.state_dict().keys() - plain.state_dict().keys() == {vector}
    assert model.state_dict()[vector].shape == (3,)  # filled in: the channels of the latent
    assert not [key for key in build(config, perturbation=dict(type='GaussianNoise')).state_dict() if 'perturb' in key]
    assert 'perturbation' in model.training_only
    model.load_state_dict({**plain.state_dict(), vector: torch.ones(3)})
    with torch.no_grad():
        latent = model.eval().encode(images())
        z, tokens, _ = model.code(latent)
        assert model.perturbed(z, latent, tokens) is z
        model.perturbation.train(), model.train(False)
        assert model.perturbed(z, latent, tokens) is z  # the tokenizer's own mode decides
        assert tokens_hash(plain) == tokens_hash(model)
        model.train()
        assert not torch.equal(model.perturbed(z, latent, tokens), z)
        assert torch.equal(plain.train().perturbed(z, latent, tokens), z)


@pytest.mark.parametrize('config', [vqgan(), kl(), with_decoder()], ids=lambda config: config['type'])
def test_tasks_decode_disturbed_latents(config: dict[str, Any]) -> None:
    """A vector in every cell: the reconstruction is the same everywhere, and only the vector and the decoder side learn."""
    settings = dict(type=TASKS[config['type']], losses=dict(l2=dict(type='MSELoss')))
    whole = dict(type='TokenMasking', low=1.0, high=1.0)
    task = VQTaskRegistry.build(dict(settings, tokenizer=dict(copy.deepcopy(config), perturbation=whole))).train()
    batch = Batch(((images() + 1) * 127.5).to(torch.uint8), list('abcd'), torch.arange(4))
    (_, losses), *_ = task.training_step(batch, task.roots(), 1)
    made = task.outputs.reconstruction
    torch.testing.assert_close(made[:1].expand_as(made), made)
    losses.values['l2'].backward()
    graded = {name for name, value in task.tokenizer.named_parameters() if value.grad is not None and value.grad.any()}
    assert 'perturbation.vector' in graded and not [name for name in graded if name.startswith('encoder')]
    assert id(task.tokenizer.perturbation.vector) in {id(value) for value in task.roots()['tokenizer'].parameters()}
    made = task.eval().validation_step(batch).reconstruction
    assert not torch.allclose(made[0], made[1])


def test_features_are_predicted_from_disturbed_codes() -> None:
    model = build(vqkd(), perturbation=dict(type='TokenMasking', low=1.0, high=1.0)).train()
    torch.nn.init.normal_(model.perturbation.vector)
    predicted = FeatureCoding(model)(images()).prediction
    torch.testing.assert_close(predicted[:1].expand_as(predicted), predicted)


@pytest.mark.parametrize('quantizer', [None, dict(type='FiniteScalarQuantizer', levels=[4, 4, 4])])
def test_tokens_and_rounding_of_its_own_quantizer(quantizer: Any) -> None:
    kind = dict(type='BoundedNoise') if quantizer else dict(type='TokenSwap', share=1.0, images=1.0, nearest=2)
    model = build(vqgan(quantizer), perturbation=kind).train()
    latent = model.encode(images())
    z, tokens, _ = model.code(latent)
    made = model.perturbed(z, latent, tokens)
    if quantizer:
        v, width = model.quantizer.unrounded(latent.mean.movedim(1, -1))
        assert ((made.movedim(1, -1) - v).abs() <= width / 2 + 1e-6).all() and not torch.equal(made, z)
    else:
        assert (made != z).any(1).all()


def test_a_frozen_tokenizer_drops_it() -> None:
    assert FrozenTokenizer(build(vqgan(), perturbation=MASKS), image_size=8).tokenizer.perturbation is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match='TokenSwap replaces tokens, and the tokenizer is continuous'):
        build(kl(), perturbation=dict(type='TokenSwap'))
    with pytest.raises(ConfigError, match=r'perturbation\.channels is 4 in the config, and model\.quantizer has 3'):
        build(vqgan(), perturbation=dict(type='TokenMasking', channels=4))
    with pytest.raises(ConfigError, match=r'perturbation\.channels is 4 in the config'):
        build(kl(), perturbation=dict(type='TokenMasking', channels=4))
