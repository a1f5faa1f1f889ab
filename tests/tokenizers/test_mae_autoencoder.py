"""The masked autoencoder gives the outputs of transformers' ViT-MAE; masks, class tokens, and what is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vq.core.check import find_problems
from vq.core.errors import ConfigError
from vq.registries import VQModelRegistry

TEACHER = dict(type='MAETeacher', dimension=16, depth=2, heads=2, image_size=16, patch_size=4)
DECODER = dict(type='MAEDecoder', dim=12, depth=2, heads=3, grid=4, mlp_ratio=2.0)


def config(encoder: dict[str, Any] | None = None, decoder: dict[str, Any] | None = None) -> dict[str, Any]:
    first = dict(type='MAEEncoder', teacher=TEACHER, **(encoder or {}))
    return dict(type='MAEAutoencoder', encoder=first, decoder={**DECODER, **(decoder or {})})


def build(settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    assert list(find_problems(VQModelRegistry, settings, 'model')) == []
    with torch.device('meta'):
        VQModelRegistry.build(settings, 'model')
    return VQModelRegistry.build(settings, 'model')


def images(height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def theirs(mask_ratio: float) -> Any:
    """transformers' ViT-MAE of the same sizes, no weight of which is zero."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    sizes: dict[str, Any] = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    sizes |= dict(decoder_hidden_size=12, decoder_num_hidden_layers=2, decoder_num_attention_heads=3)
    torch.manual_seed(3)
    sizes |= dict(decoder_intermediate_size=24, image_size=16, patch_size=4, mask_ratio=mask_ratio)
    network: Any = ViTMAEForPreTraining(ViTMAEConfig(**sizes, layer_norm_eps=1e-6)).eval()
    network.decoder.initialize_weights(16)  # the positions; transformers leaves them zero in a network without a file
    for module in network.decoder.modules():  # its files have 1e-12 in both halves, MAE's authors 1e-6
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-12
    with torch.no_grad():
        for name, value in network.named_parameters():
            if 'decoder_pos_embed' not in name:
                value.add_(0.1 * torch.randn_like(value))
    return network


@torch.no_grad()
def fill(model: Any, network: Any) -> None:
    """Copy the weights of transformers' network, by its modules."""
    mine, vit, decoder = model.encoder.teacher.network, network.vit, network.decoder
    pairs = [
        (mine.cls_token, vit.embeddings.cls_token),
        (mine.pos_embed, vit.embeddings.position_embeddings),
        (model.decoder.out.bias, rows(decoder.decoder_pred.bias)),
        (model.decoder.out.weight, rows(decoder.decoder_pred.weight)),
    ]
    layers = [
        (mine.patch_embed.proj, vit.embeddings.patch_embeddings.projection),
        (mine.norm, vit.layernorm),
        (model.decoder.stem, decoder.decoder_embed),
        (model.decoder.norm_out, decoder.decoder_norm),
    ]
    for own, other in zip(mine.blocks, vit.layers, strict=True):
        layers += [(own.norm1, other.layernorm_before), (own.norm2, other.layernorm_after)]
        layers += [(own.attn.proj, other.attention.o_proj), (own.mlp.fc1, other.mlp.fc1), (own.mlp.fc2, other.mlp.fc2)]
        pairs += packed(own.attn.qkv, other.attention)
    for own, other in zip(model.decoder.blocks, decoder.decoder_layers, strict=True):
        layers += [(own.norm_attention, other.layernorm_before), (own.norm_mlp, other.layernorm_after)]
        layers += [(own.proj, other.attention.o_proj), (own.mlp_in, other.mlp.fc1), (own.mlp_out, other.mlp.fc2)]
        pairs += packed(own.qkv, other.attention)
    pairs += [(getattr(own, leaf), getattr(other, leaf)) for own, other in layers for leaf in ('weight', 'bias')]
    if model.decoder.mask_token is not None:
        pairs.append((model.decoder.mask_token, decoder.mask_token.flatten()))
    for own, other in pairs:
        own.copy_(other)


def packed(qkv: Any, attention: Any) -> list[tuple[Tensor, Tensor]]:
    parts = [getattr(attention, f'{name}_proj') for name in 'qkv']
    return [(getattr(qkv, leaf), torch.cat([getattr(part, leaf) for part in parts])) for leaf in ('weight', 'bias')]


def rows(value: Tensor) -> Tensor:
    """Their pixels of a patch are (row, column, colour), ours (colour, row, column)."""
    return value.unflatten(0, (4, 4, 3)).movedim(2, 0).flatten(0, 2)


@pytest.mark.parametrize('mask_ratio', [0.0, 0.6])
def test_it_is_the_network_of_transformers(mask_ratio: float) -> None:
    """Their reconstruction of normalised pixels, from the same patches."""
    network = theirs(mask_ratio)
    model = build(config(dict(mask_ratio=mask_ratio), dict(class_token='given', masked=mask_ratio > 0)))
    fill(model, network)
    model.train()
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(5))
    image = images()
    pixels = model.encoder.teacher.preprocess(image)
    see = model.encoder.see
    model.encoder.see = lambda given: see(given, noise)
    with torch.no_grad():
        if not mask_ratio:
            noise = torch.arange(16.0).expand(3, -1)
        expected = network(pixels, noise=noise)
        latent = model.encode(image)
        z, _, losses = model.code(latent)
        made = model.decode(z)
        encoded = network.vit(pixels, noise=noise).last_hidden_state
    assert losses == {}
    if not mask_ratio:
        torch.testing.assert_close(latent.mean.transpose(1, 2), encoded, rtol=1e-5, atol=1e-5)
    else:
        mask = latent.extra['mask'][:, 0]
        assert torch.equal(mask[:, 1:].float(), expected.mask) and not mask[:, 0].any() and mask.sum() == 3 * 10
    patches = network.unpatchify(expected.logits)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = ((made + 1) / 2 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    torch.testing.assert_close(normalised, patches, rtol=1e-4, atol=1e-5 * float(patches.abs().max()))


def test_masks_are_drawn_in_training_alone() -> None:
    model = build(config(dict(mask_ratio=0.5), dict(masked=True)))
    image = images(8, 20)
    latent = model.eval().encode(image)
    assert latent.mean.shape == (3, *model.spec((8, 20)).latent.shape) == (3, 16, 2, 5)
    assert latent.extra == {} and model.code(latent)[0] is latent.mean
    latent = model.train().encode(image)
    mask = latent.extra['mask']
    assert (mask.flatten(1).sum(1) == 5).all() and not torch.equal(mask, model.encode(image).extra['mask'])
    assert not (latent.mean * mask).any() and model.code(latent)[0].shape == (3, 17, 2, 5)
    made, _ = model(image)
    assert made.shape == image.shape


def test_the_class_token_is_dropped_or_the_first_cell() -> None:
    with_token, without = build(config(decoder=dict(class_token='given'))), build(config())
    sequence, grid = with_token.encode(images()).mean, without.encode(images()).mean
    assert with_token.spec((16, 16)).latent.shape == (16, 17) == sequence.shape[1:]
    assert torch.equal(sequence[:, :, 1:].unflatten(2, (4, 4)), grid)
    assert not with_token.no_cls and without.no_cls
    assert with_token.decode(sequence).shape == without.decode(grid).shape == (3, 3, 16, 16)


@pytest.mark.parametrize('trained', [False, True])
def test_positions_are_never_trained_and_the_encoder_on_demand(trained: bool) -> None:
    model = build(config(dict(train_encoder=trained, mask_ratio=0.5), dict(masked=True))).train()
    model(images())[0].square().mean().backward()
    there = {name for name, value in model.named_parameters() if value.grad is not None}
    assert there == {name for name, value in model.named_parameters() if value.requires_grad}
    others = {name for name, _ in model.named_parameters() if not name.startswith('encoder.') or trained}
    assert there == others - {'encoder.teacher.network.pos_embed'}


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (config(dict(mask_ratio=1.0)), 'mask_ratio is 1.0'),
        (config(dict(mask_ratio=0.5)), 'masked of the decoder is False'),
        (config(decoder=dict(masked=True)), 'masked of the decoder is True'),
        ({**config(), 'decoder': dict(type='ViTDecoder', patch=4, dim=8, depth=1, heads=2)}, 'ViTDecoder'),
        (
            {
                **config(),
                'encoder': dict(type='MAEEncoder', teacher=dict(type='CLIPTeacher', dimension=16, width=16, depth=1, heads=2)),
            },
            'CLIPTeacher takes whole images',
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VQModelRegistry.build(settings, 'model')
