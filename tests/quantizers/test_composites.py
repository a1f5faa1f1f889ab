"""Residual and grouped quantization, against the goldens and against vector-quantize-pytorch itself."""

from __future__ import annotations

import pytest
import torch
from vector_quantize_pytorch import GroupedResidualVQ, ResidualVQ

from tests.published import read_golden
from vq.core.check import find_problems
from vq.core.errors import ConfigError
from vq.quantizers.grouped import GroupedQuantizer
from vq.quantizers.residual import ResidualQuantizer
from vq.quantizers.vector import VectorQuantizer
from vq.registries import VQQuantizerRegistry

CLOSE = dict(rtol=1e-5, atol=1e-6)


def inner(**options):
    return dict(type='VectorQuantizer', **{'codebook_size': 9, 'embedding_dim': 4, 'init': 'normal', **options})


def build(**config):
    torch.manual_seed(0)
    assert list(find_problems(VQQuantizerRegistry, config, 'quantizer')) == []
    return VQQuantizerRegistry.build(config, 'quantizer')


@pytest.mark.parametrize('file', ['residual_vq', 'residual_vq_shared'])
def test_golden_residual(file):
    peer = read_golden(file)
    codebooks, meta = peer['in/codebooks'], peer.meta
    quantizer = ResidualQuantizer(
        VectorQuantizer(meta['codebook_size'], meta['dim'], commitment_weight=meta['commitment_weight']),
        stages=meta['num_quantizers'],
        shared=meta['shared_codebook'],
    )
    quantizer.load_state_dict({f'parts.{index}.codebook.weight': codes for index, codes in enumerate(codebooks)})
    quantized = quantizer.eval()(peer['in/x'])
    assert torch.equal(quantized.tokens, peer['out/indices'])
    torch.testing.assert_close(quantized.z, peer['out/quantized'], **CLOSE)
    torch.testing.assert_close(quantizer.lookup(peer['out/indices']), peer['out/output_from_indices'], **CLOSE)
    for stages in range(1, meta['num_quantizers'] + 1):
        prefix = quantizer.lookup(peer['out/indices'][..., :stages])
        torch.testing.assert_close(prefix, peer[f'out/partial_{stages}'], **CLOSE)
    for index, part in enumerate(quantizer.used()):
        codes = part.lookup(peer['out/indices'][..., index])
        torch.testing.assert_close(codes, peer['out/per_stage_codes'][index], **CLOSE)

    x = peer['in/x'].clone().requires_grad_()
    quantized = quantizer.train()(x)
    weighted = {name: quantizer.loss_weights[name] * value for name, value in quantized.losses.items()}
    commitments = torch.stack([weighted[f'commitment_{index + 1}'] for index in range(meta['num_quantizers'])])
    torch.testing.assert_close(commitments, peer['out/train_commit_losses'], **CLOSE)
    (gradient,) = torch.autograd.grad(commitments.sum(), x, retain_graph=True)
    torch.testing.assert_close(gradient, peer['out/grad_x_of_commit'], rtol=1e-3, atol=1e-6)
    (gradient,) = torch.autograd.grad((quantized.z * peer['in/cotangent']).sum(), x)
    torch.testing.assert_close(gradient, peer['out/grad_x_of_straight_through'], rtol=1e-3, atol=1e-6)


def test_residual_against_vector_quantize_pytorch():
    torch.manual_seed(1)
    peer = ResidualVQ(dim=6, num_quantizers=5, codebook_size=21, rotation_trick=False).eval()
    ours = ResidualQuantizer(VectorQuantizer(21, 6), stages=5).eval()
    codebooks = torch.randn(5, 21, 6)
    for part, layer, codes in zip(ours.parts, peer.layers, codebooks, strict=True):
        part.codebook.weight.data.copy_(codes)
        layer._codebook.embed.data.copy_(codes[None])
    x = torch.randn(3, 17, 6)
    expected, tokens, _ = peer(x)
    quantized = ours(x)
    assert torch.equal(quantized.tokens, tokens)
    torch.testing.assert_close(quantized.z, expected, **CLOSE)


def test_grouped_residual_against_vector_quantize_pytorch():
    """Channels are split in order, and the tokens of a group are adjacent."""
    torch.manual_seed(2)
    peer = GroupedResidualVQ(dim=6, groups=2, num_quantizers=3, codebook_size=13, rotation_trick=False).eval()
    ours = GroupedQuantizer(ResidualQuantizer(VectorQuantizer(13, 3), stages=3), groups=2).eval()
    for group, theirs in zip(ours.parts, peer.rvqs, strict=True):
        for part, layer in zip(group.parts, theirs.layers, strict=True):
            codes = torch.randn(13, 3)
            part.codebook.weight.data.copy_(codes)
            layer._codebook.embed.data.copy_(codes[None])
    x = torch.randn(2, 11, 6)
    expected, tokens, _ = peer(x)  # tokens (groups, B, n, stages)
    quantized = ours(x)
    assert torch.equal(quantized.tokens, tokens.permute(1, 2, 0, 3).flatten(2))
    torch.testing.assert_close(quantized.z, expected, **CLOSE)
    assert ours.codebooks == (13,) * 6
    assert torch.equal(ours.lookup(quantized.tokens), quantized.z)


def test_grouped_is_each_group_alone():
    quantizer = build(type='GroupedQuantizer', quantizer=[inner(), inner(embedding_dim=3, codebook_size=5)]).eval()
    x = torch.randn(2, 7, 7)
    quantized = quantizer(x)
    for part, features, tokens in zip(quantizer.parts, (x[..., :4], x[..., 4:]), quantized.tokens.unbind(-1), strict=True):
        assert torch.equal(part(features).tokens, tokens)
    assert quantizer.embedding_dim == 7
    assert quantizer.codebook_size == 9
    assert quantizer.codebooks == (9, 5)


def test_copies_have_codes_of_their_own_and_shared_ones_are_saved_once():
    own = build(type='ResidualQuantizer', quantizer=inner(), stages=3)
    assert len(own.state_dict()) == 3
    first, second, third = own.state_dict().values()
    assert not torch.equal(first, second) and not torch.equal(second, third)
    shared = build(type='ResidualQuantizer', quantizer=inner(), stages=3, shared=True)
    assert list(shared.state_dict()) == ['parts.0.codebook.weight']
    assert len(shared.codebooks) == 1
    assert shared.token_spec((5, 2)).shape == (5, 2, 3)


def test_a_shared_codebook_learns_from_all_its_uses_in_one_update():
    update = dict(type='EMAUpdate', decay=0.5)
    quantizer = build(type='GroupedQuantizer', quantizer=inner(embedding_dim=2, update=update), groups=2, shared=True).train()
    alone = build(**inner(embedding_dim=2, update=update)).train()
    alone.load_state_dict({name.removeprefix('parts.0.'): value for name, value in quantizer.state_dict().items()})
    x = torch.randn(40, 4)
    quantizer(x)
    alone(torch.cat([x[:, :2], x[:, 2:]]))
    quantizer.update()
    alone.update()
    torch.testing.assert_close(quantizer.parts[0].codebook.weight, alone.codebook.weight, **CLOSE)


def test_an_update_that_is_not_good_changes_no_part():
    quantizer = build(type='ResidualQuantizer', quantizer=inner(update=dict(type='EMAUpdate', decay=0.5)), stages=2).train()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(torch.randn(30, 4))
    quantizer.update(torch.tensor(False))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
    quantizer(torch.randn(30, 4))
    quantizer.update(torch.tensor(True))
    changed = [name for name, value in quantizer.state_dict().items() if not torch.equal(value, before[name])]
    assert {name.split('.')[1] for name in changed} == {'0', '1'}


def test_dropout_decodes_prefixes_of_the_stages():
    quantizer = build(type='ResidualQuantizer', quantizer=inner(), stages=4, dropout=0.7)
    x = torch.randn(600, 3, 4, requires_grad=True)
    quantized = quantizer.train()(x)
    prefixes = torch.stack([quantizer.lookup(quantized.tokens[..., :stages]) for stages in range(1, 5)])  # (4, B, 3, C)
    same = (prefixes == quantized.z.detach()).flatten(2).all(-1)  # (4, B)
    assert (same.sum(0) == 1).all()  # one number of stages per example, the same for all its cells
    share = same.double().mean(1)
    expected = torch.tensor([0.175, 0.175, 0.175, 0.475], dtype=torch.float64)
    torch.testing.assert_close(share, expected, rtol=0, atol=0.06)  # 3 standard deviations
    assert torch.equal(quantizer.eval()(x).tokens, quantized.tokens)
    assert torch.equal(quantizer(x).z, quantizer.lookup(quantized.tokens))


def test_losses_of_every_stage_have_the_weights_of_its_quantizer():
    gumbel = dict(type='GumbelQuantizer', codebook_size=6, embedding_dim=4, kl_weight=0.5)
    quantizer = build(type='ResidualQuantizer', quantizer=[inner(commitment_weight=0.1), gumbel])
    assert quantizer.loss_weights == {'codebook_1': 1.0, 'commitment_1': 0.1, 'kl_2': 0.5}
    assert quantizer(torch.randn(5, 4)).losses.keys() == quantizer.loss_weights.keys()
    quantizer.parts[1].kl_weight = 0.25  # as a schedule would
    assert quantizer.loss_weights['kl_2'] == 0.25


def test_an_update_in_forward_is_known_outside():
    update = dict(type='CVQUpdate', in_forward=True)
    assert build(type='ResidualQuantizer', quantizer=[inner(), inner(update=update)]).updates_in_forward
    assert not build(type='ResidualQuantizer', quantizer=inner(), stages=2).updates_in_forward


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(type='ResidualQuantizer', quantizer=inner()), 'stages is None'),
        (dict(type='ResidualQuantizer', quantizer=inner(), stages=0), 'stages is 0'),
        (dict(type='ResidualQuantizer', quantizer=[inner()], stages=2), '1 quantizers are listed'),
        (dict(type='ResidualQuantizer', quantizer=[]), '0 quantizers are listed'),
        (dict(type='ResidualQuantizer', quantizer=[inner(), inner()], shared=True), 'shared True'),
        (dict(type='ResidualQuantizer', quantizer=[inner(), inner(embedding_dim=5)]), r'\[4, 5\] channels'),
        (dict(type='ResidualQuantizer', quantizer=inner(), stages=2, dropout=1.5), 'dropout is 1.5'),
        (dict(type='GroupedQuantizer', quantizer=inner()), 'groups is None'),
        (
            dict(
                type='GroupedQuantizer',
                quantizer=dict(type='MultiScaleQuantizer', quantizer=inner(), scales=(1, 2), convolutions=2),
                groups=2,
            ),
            'single vectors',
        ),
    ],
)
def test_bad_settings(config, message):
    with pytest.raises(ConfigError, match=message) as caught:
        VQQuantizerRegistry.build(config)
    assert caught.value.hint


def test_tokens_that_are_no_stages():
    nested = dict(type='GroupedQuantizer', quantizer=inner(), groups=2)
    quantizer = build(type='ResidualQuantizer', quantizer=nested, stages=2)
    for width in (0, 1, 3, 5):
        with pytest.raises(ConfigError, match='the stages have'):
            quantizer.lookup(torch.zeros(2, width, dtype=torch.int64))
    assert quantizer.lookup(torch.zeros(2, 2, dtype=torch.int64)).shape == (2, 8)
