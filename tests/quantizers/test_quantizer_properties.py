"""Properties of every quantizer."""

from __future__ import annotations

import math

import pytest
import torch

from vq.core.check import find_problems
from vq.core.errors import ConfigError
from vq.quantizers.vector import VectorQuantizer
from vq.registries import VQQuantizerRegistry

SMALL = dict(type='VectorQuantizer', codebook_size=4, embedding_dim=4)
SHAPES = [(7,), (2, 3), (1, 5, 3, 2)]


def trained(quantizer, steps=3):
    """A few training steps, so that no state is initial."""
    quantizer.train()
    for step in range(steps):
        quantizer(torch.randn(60, quantizer.embedding_dim, generator=torch.Generator().manual_seed(step)))
        quantizer.update()
    return quantizer.eval()


@pytest.mark.parametrize('shape', SHAPES)
def test_lookup_of_tokens_is_z(name, make, shape):
    quantizer = trained(make(name))
    quantized = quantizer(torch.randn(*shape, quantizer.embedding_dim))
    assert quantized.tokens.shape == quantizer.token_spec(shape).shape
    assert quantized.tokens.dtype == torch.int64
    assert quantized.z.dtype == torch.float32
    assert torch.equal(quantizer.lookup(quantized.tokens), quantized.z)


@pytest.mark.parametrize('scale', [0.0, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_tokens_are_in_range(name, make, scale, dtype):
    quantizer = trained(make(name))
    tokens = quantizer((torch.randn(200, quantizer.embedding_dim) * scale).to(dtype)).tokens
    assert tokens.min() >= 0
    assert tokens.max() < quantizer.codebook_size


def test_values_that_are_not_finite_give_tokens_in_range(name, make):
    quantizer = trained(make(name))
    features = torch.randn(3, quantizer.embedding_dim)
    features[0, 0], features[1, 1] = float('nan'), float('-inf')
    tokens = quantizer(features).tokens
    assert tokens.min() >= 0
    assert tokens.max() < quantizer.codebook_size


def test_all_tokens_can_be_looked_up_and_found_again(name, make):
    quantizer = make(name).eval()
    if quantizer.token_spec(()).shape:
        pytest.skip('features have several tokens: these are tried in the tests of the parts')
    tokens = torch.arange(quantizer.codebook_size)
    codes = quantizer.lookup(tokens)
    assert codes.shape == (quantizer.codebook_size, quantizer.embedding_dim)
    assert len(codes.unique(dim=0)) == quantizer.codebook_size
    if name.startswith('fsq'):  # features that are bounded to the codes: one level is a half range of 2 (L // 2) / (L - 1)
        v = codes * quantizer.middle / quantizer.digit
        features = torch.atanh(((v * 2 + quantizer.offset) / quantizer.scale).clamp(-0.9999, 0.9999))
        codes = features - quantizer.shift
    if name == 'gumbel':  # a layer in whose eyes a direction speaks for the code it points at
        with torch.no_grad():
            quantizer.logits.weight.copy_(torch.nn.functional.normalize(codes))
            quantizer.logits.bias.zero_()
    if name == 'ibq':  # the largest product: only codes on a sphere are each their own best
        with torch.no_grad():
            quantizer.codebook.weight.copy_(torch.nn.functional.normalize(codes))
        codes = quantizer.lookup(tokens)
    assert torch.equal(quantizer(codes).tokens, tokens)


@pytest.mark.parametrize('training', [True, False])
def test_gradient_reaches_the_features(name, make, training):
    quantizer = trained(make(name)).train(training)
    features = torch.randn(6, 4, quantizer.embedding_dim, requires_grad=True)
    quantized = quantizer(features)
    (gradient,) = torch.autograd.grad((quantized.z * torch.randn_like(quantized.z)).sum(), features)
    assert (gradient.abs().sum(-1) > 0).all()


def test_training_value_is_the_code_to_the_last_bit(name, make):
    quantizer = make(name).train()
    quantized = quantizer(torch.randn(50, quantizer.embedding_dim, requires_grad=True))
    assert torch.equal(quantized.z.detach(), quantizer.lookup(quantized.tokens))


def test_same_tokens_and_values_under_autocast(name, make):
    quantizer = trained(make(name))
    features = torch.randn(300, quantizer.embedding_dim)
    plain = quantizer(features)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = quantizer(features)
    assert torch.equal(plain.tokens, cast.tokens)
    assert torch.equal(plain.z, cast.z)
    assert plain.losses.keys() == cast.losses.keys()
    for key, value in plain.losses.items():
        assert torch.equal(value, cast.losses[key])


def test_state_round_trip(name, make):
    """A loaded quantizer continues exactly like the saved one."""
    original = trained(make(name))
    state = {key: value.clone() for key, value in original.state_dict().items()}
    copy = make(name)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(1)
    copy.load_state_dict(state)
    features = torch.randn(80, original.embedding_dim)
    for quantizer in (original, copy):
        quantizer.train()
        quantizer(features)
        quantizer.update()
    assert original.state_dict().keys() == copy.state_dict().keys()
    for key, value in original.state_dict().items():
        assert torch.equal(value, copy.state_dict()[key]), key


def test_eval_issues_no_collective_and_observes_nothing(name, make, no_collectives):
    quantizer = make(name).eval()
    before = [buffer.clone() for buffer in quantizer.buffers()]
    quantizer(torch.randn(30, quantizer.embedding_dim))
    shape = quantizer.token_spec(()).shape
    quantizer.lookup(torch.arange(5)[:, None].expand(5, *shape) if shape else torch.arange(5))
    assert all(torch.equal(a, b) for a, b in zip(before, quantizer.buffers(), strict=True))


def test_training_forward_issues_no_collective(name, make, no_collectives):
    quantizer = make(name).train()
    tokens = quantizer(torch.randn(30, quantizer.embedding_dim)).tokens  # a collective would raise
    assert tokens.shape == quantizer.token_spec((30,)).shape


def test_meta_device(name, make):
    with torch.device('meta'):
        quantizer = make(name).train()
        quantized = quantizer(torch.randn(2, 3, quantizer.embedding_dim))
    assert quantized.z.is_meta
    assert quantized.tokens.shape == quantizer.token_spec((2, 3)).shape
    assert {tensor.device.type for tensor in (*quantizer.parameters(), *quantizer.buffers())} <= {'meta'}


def test_leaving_the_meta_device(name, make):
    """``reset_parameters`` fills all tensors that are not in checkpoints."""
    with torch.device('meta'):
        late = make(name)
    late.to_empty(device='cpu')
    late.reset_parameters()
    early = make(name)
    late.load_state_dict(early.state_dict())
    features = torch.randn(50, early.embedding_dim)
    for quantizer in (early, late):
        quantizer.train()
        quantizer(features)
        quantizer.update()
    for ours, theirs in zip(early.buffers(), late.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    values = []
    for quantizer in (early, late):
        torch.manual_seed(1)  # some draw noise
        values.append(quantizer(features).z)
    assert torch.equal(*values)


def test_config_check_knows_every_parameter(name, configs):
    assert list(find_problems(VQQuantizerRegistry, configs[name], 'quantizer')) == []


def test_bits(name, make):
    quantizer = make(name)
    tokens = math.prod(quantizer.token_spec(()).shape)
    sizes = quantizer.codebooks if len(quantizer.codebooks) > 1 else quantizer.codebooks * tokens
    assert len(sizes) == tokens
    assert max(sizes) == quantizer.codebook_size
    assert quantizer.bits == pytest.approx(math.log2(math.prod(sizes)), rel=1e-12)


def test_losses_are_what_they_are_called():
    quantizer = VectorQuantizer(9, 4, commitment_weight=0.5)
    features = torch.randn(2, 7, 4, requires_grad=True)
    quantized = quantizer(features)
    expected = (features - quantizer.codebook.weight[quantized.tokens]).square().mean()
    assert quantizer.loss_weights == {'codebook': 1.0, 'commitment': 0.5}
    for name, reaches in {'codebook': (False, True), 'commitment': (True, False)}.items():
        torch.testing.assert_close(quantized.losses[name], expected)
        gradients = torch.autograd.grad(
            quantized.losses[name], [features, quantizer.codebook.weight], retain_graph=True, allow_unused=True
        )
        assert tuple(gradient is not None for gradient in gradients) == reaches


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(type='VectorQuantizer', codebook_size=0, embedding_dim=4), 'codebook'),
        (dict(**SMALL, distance='l1'), 'l1'),
        (dict(**SMALL, update=dict(type='VQKDUpdate')), 'unit length'),
        (dict(**SMALL, update=dict(type='EMAUpdate', decay=1.0)), 'decay'),
        (dict(**SMALL, update=dict(type='RestartUnused', threshold=2.0)), 'threshold'),
        (dict(**SMALL, update=dict(type='CVQUpdate', anchor='far')), 'far'),
        (dict(**SMALL, update=dict(type='EMAUpdate', smoothing='pixels')), 'pixels'),
        (dict(**SMALL, contrastive=dict(temperature=0.0)), 'temperature'),
        (dict(**SMALL, contrastive=dict(), update=dict(type='EMAUpdate')), 'by gradient'),
        (dict(type='FiniteScalarQuantizer', levels=[3], bound='round'), 'round'),
        (dict(type='GumbelQuantizer', codebook_size=4, embedding_dim=4, temperature=0.0), 'temperature'),
        (dict(type='FiniteScalarQuantizer', levels=[]), 'levels'),
        (dict(type='FiniteScalarQuantizer', levels=[8, 2]), 'levels'),
        (dict(type='FiniteScalarQuantizer', levels=[1000] * 21), '64-bit'),
    ],
)
def test_bad_settings(config, message):
    with pytest.raises(ConfigError, match=message) as caught:
        VQQuantizerRegistry.build(config)
    assert caught.value.hint


@pytest.mark.parametrize(
    ('levels', 'bound'),
    [([3], 'inner'), ([2], 'outer'), ([5, 4], 'inner'), ([1001, 1001, 999], 'outer'), ([2, 5, 4], 'symmetric')],
)
def test_finite_scalar_tokens_and_codes_are_inverse(levels, bound):
    """Also for 10^9 codes, beyond the exact integers of fp32."""
    quantizer = VQQuantizerRegistry.build(dict(type='FiniteScalarQuantizer', levels=levels, bound=bound))
    tokens = torch.randint(quantizer.codebook_size, (500,))
    tokens[:2] = torch.tensor([0, quantizer.codebook_size - 1])
    digits = torch.round((quantizer.lookup(tokens) + 1) * quantizer.middle / quantizer.digit).long()
    basis = [math.prod(levels[:index]) for index in range(len(levels))]
    assert torch.equal((digits * torch.tensor(basis)).sum(-1), tokens)
    assert (digits >= 0).all()
    assert (digits < torch.tensor(levels)).all()
    far = quantizer(torch.tensor([[-50.0] * len(levels), [50.0] * len(levels)])).tokens
    assert far.tolist() == [0, quantizer.codebook_size - 1]
