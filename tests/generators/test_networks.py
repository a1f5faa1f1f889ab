"""Causal networks: cached logits equal recomputed ones, and transformers' models are an independent reference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError, RunFailure, UserError
from vq.generators.networks.gpt2 import GPT2Network
from vq.generators.networks.hugging_face import HuggingFaceGPT2, HuggingFaceLlama
from vq.generators.networks.llama import LlamaNetwork, feed_forward_width, llama_size
from vq.interfaces import CausalNetwork

LENGTH, VOCABULARY = 16, 37

OURS = {
    'line': lambda: LlamaNetwork(VOCABULARY, 24, 2, 3, length=LENGTH, multiple_of=8),
    'grid': lambda: LlamaNetwork(VOCABULARY, 24, 2, 3, grid=(3, 5), prefix=1, multiple_of=8),
    'grouped': lambda: LlamaNetwork(VOCABULARY, 48, 2, 6, 2, grid=(3, 5), prefix=1, ffn_dim=31),
    'one key head': lambda: LlamaNetwork(VOCABULARY, 24, 2, 3, 1, length=LENGTH, prefix=2, ffn_dim=20),
    'gpt2': lambda: GPT2Network(VOCABULARY, 24, 2, 3, LENGTH),
    'gpt2 untied': lambda: GPT2Network(VOCABULARY, 24, 2, 3, LENGTH, ffn_dim=17, tied=False),
}
THEIRS = {
    'hf llama': lambda: HuggingFaceLlama(
        VOCABULARY,
        LENGTH,
        dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, tie_word_embeddings=False),
    ),
    'hf gpt2': lambda: HuggingFaceGPT2(VOCABULARY, LENGTH, dict(n_embd=24, n_layer=2, n_head=3)),
}
ALL = {**OURS, **THEIRS}


def lively(network: CausalNetwork) -> CausalNetwork:
    """Random weights large enough that any error is visible; the head is not zero."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network.eval()


@pytest.fixture(params=ALL)
def network(request: pytest.FixtureRequest) -> CausalNetwork:
    if request.param in THEIRS:
        pytest.importorskip('transformers')
    return lively(ALL[request.param]())


@pytest.fixture(params=OURS)
def own(request: pytest.FixtureRequest) -> CausalNetwork:
    return lively(OURS[request.param]())


def embedded(network: CausalNetwork, rows: int, length: int = LENGTH) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return network.embed(torch.randint(network.vocabulary, (rows, length), generator=generator)).detach()


def decode(network: CausalNetwork, x: Tensor, parts: list[int]) -> Tensor:
    """Logits after each part of the sequence, (B, parts, V)."""
    cache, start, found = network.make_cache(len(x), x.shape[1]), 0, []
    for count in parts:
        found.append(network.step(x[:, start : start + count], start, cache))
        start += count
    return torch.stack(found, dim=1)


@pytest.mark.parametrize('parts', [[1] * LENGTH, [5, *[1] * 11], [4, 1, 6, 1, 4], [LENGTH]], ids=str)
def test_cached_decoding_equals_recomputation(network, parts):
    x = embedded(network, 3)
    ends = torch.tensor(parts).cumsum(0) - 1
    with torch.no_grad():
        full = network(x)
    assert full.shape == (3, LENGTH, VOCABULARY)
    torch.testing.assert_close(decode(network, x, parts), full[:, ends], rtol=1e-4, atol=1e-4)


def test_same_greedy_tokens_with_and_without_cache(network):
    x, cache = embedded(network, 4, 1), network.make_cache(4, LENGTH)
    cached = plain = x
    logits = network.step(cached, 0, cache)
    for position in range(1, LENGTH):
        token = logits.argmax(-1, keepdim=True)
        with torch.no_grad():
            assert torch.equal(token, network(plain)[:, -1:].argmax(-1))
            plain = torch.cat([plain, network.embed(token)], dim=1)
        logits = network.step(network.embed(token), position, cache)


def test_later_positions_are_not_seen(network):
    x = embedded(network, 2)
    other = x.clone()
    other[:, 9:] = other[:, 9:].flip(-1)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[:, :9], network(other)[:, :9], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(network(x)[:, 9:], network(other)[:, 9:], atol=1e-3)


@pytest.mark.slow
def test_a_batch_of_eight_is_eight_batches_of_one(network):
    x = embedded(network, 8)
    ones = [1] * LENGTH
    single = torch.cat([decode(network, x[row : row + 1], ones) for row in range(8)])
    together = decode(network, x, ones)
    scale = together.abs().max().item()
    torch.testing.assert_close(together / scale, single / scale, rtol=0, atol=1e-5)


def test_step_at_a_position_on_the_device_equals_step(own):
    """With garbage after the position: unwritten parts of the cache must not count."""
    x = embedded(own, 3)
    cache, other = own.make_cache(3, LENGTH), own.make_cache(3, LENGTH)
    other.pairs.fill_(1e4)
    for position in range(LENGTH):
        wanted = own.step(x[:, position : position + 1], position, cache)
        given = own.step_at(x[:, position : position + 1], torch.tensor(position), other)
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


def test_first_rows_of_a_cache_go_on(own):
    x = embedded(own, 4)
    cache = own.make_cache(4, LENGTH)
    own.step(x[:, :6], 0, cache)
    logits = own.step(x[:2, 6:7], 6, cache.first_rows(2))
    torch.testing.assert_close(logits, decode(own, x[:2], [6, 1])[:, 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ['grid', 'grouped', 'gpt2'])
def test_bf16_weights_and_autocast(name):
    network = lively(OURS[name]())
    x = embedded(network, 3)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast('cpu', torch.bfloat16):
            mixed = network(x)
            cache = network.make_cache(3, LENGTH)
            stepped = [network.step(x[:, t : t + 1], t, cache) for t in range(LENGTH)]
        assert cache.pairs.dtype == torch.bfloat16
        half = network.bfloat16()
        low = half(x.bfloat16())
        cached = decode(half, x.bfloat16(), [3, *[1] * 13])
    assert low.dtype == torch.bfloat16 and cached.dtype == torch.float32
    spread = exact.std()
    for found in (mixed, torch.stack(stepped, 1), low):
        assert (found.float() - exact).square().mean().sqrt() < 0.05 * spread
    assert (cached - low[:, 2:].float()).square().mean().sqrt() < 0.05 * spread


@pytest.mark.parametrize('name', ALL)
def test_builds_on_the_meta_device(name):
    if name in THEIRS:
        pytest.importorskip('transformers')
    with torch.device('meta'):
        network = ALL[name]()
    assert all(parameter.is_meta for parameter in network.parameters())
    assert network.dim == network.embed(torch.zeros(1, 2, dtype=torch.int64, device='meta')).shape[-1]


def test_before_training_every_id_is_equally_likely():
    network = OURS['grid']()
    logits = network(embedded(network, 2))
    assert not logits.any()
    assert 0.018 < network.blocks[0].gate_up.weight.std() < 0.022


@pytest.mark.parametrize('name', ['grid', 'gpt2'])
def test_recomputed_activations_give_the_same_gradients(name):
    network = lively(OURS[name]()).train()
    x = embedded(network, 2)

    def gradients(recompute: bool) -> list[Tensor]:
        for block in network.blocks:
            block.recompute = recompute
        return list(torch.autograd.grad(network(x).square().mean(), [*network.blocks.parameters()]))

    assert all(torch.equal(a, b) for a, b in zip(gradients(False), gradients(True), strict=True))


def test_dropouts_act_in_training_alone():
    network = lively(LlamaNetwork(VOCABULARY, 24, 1, 3, length=8, token_dropout=0.5))
    x = embedded(network, 2, 8)
    assert torch.equal(network(x), network(x))
    assert not torch.equal(network.train()(x), network(x))
    residual = lively(LlamaNetwork(VOCABULARY, 24, 1, 3, length=8, dropout=0.5)).train()
    assert not torch.equal(residual(x), residual(x))


# transformers as an oracle


@pytest.mark.parametrize('kv_heads', [3, 1])
def test_llama_is_that_of_transformers(kv_heads):
    """Weights copied by hand: logits and gradients. Its rotary pairs are (i, i + D / 2), ours are neighbours."""
    transformers = pytest.importorskip('transformers')
    ours = lively(LlamaNetwork(VOCABULARY, 24, 2, 3, kv_heads, length=LENGTH, ffn_dim=40))
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=kv_heads,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
        )
    )
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    with torch.no_grad():
        theirs.model.embed_tokens.weight.copy_(ours.embedding.weight)
        theirs.lm_head.weight.copy_(ours.head.weight)
        theirs.model.norm.weight.copy_(ours.norm.weight)
        for layer, block in zip(theirs.model.layers, ours.blocks, strict=True):
            heads = block.qkv.weight.view(-1, 8, 24)
            layer.self_attn.q_proj.weight.copy_(heads[:3, order].flatten(0, 1))
            layer.self_attn.k_proj.weight.copy_(heads[3 : 3 + kv_heads, order].flatten(0, 1))
            layer.self_attn.v_proj.weight.copy_(heads[3 + kv_heads :].flatten(0, 1))
            layer.self_attn.o_proj.weight.copy_(block.out.weight)
            layer.mlp.gate_proj.weight.copy_(block.gate_up.weight[:40])
            layer.mlp.up_proj.weight.copy_(block.gate_up.weight[40:])
            layer.mlp.down_proj.weight.copy_(block.down.weight)
            layer.input_layernorm.weight.copy_(block.attention_norm.weight)
            layer.post_attention_layernorm.weight.copy_(block.ffn_norm.weight)
    ids = torch.randint(VOCABULARY, (3, 13))
    mine, others = ours(ours.embed(ids)), theirs(ids).logits
    torch.testing.assert_close(mine, others, rtol=1e-4, atol=1e-4)
    for logits in (mine, others):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    close = dict(rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ours.embedding.weight.grad, theirs.model.embed_tokens.weight.grad, **close)
    layer, block = theirs.model.layers[0], ours.blocks[0]
    torch.testing.assert_close(
        block.qkv.weight.grad.view(-1, 8, 24)[:3, order].flatten(0, 1), layer.self_attn.q_proj.weight.grad, **close
    )
    torch.testing.assert_close(block.gate_up.weight.grad[:40], layer.mlp.gate_proj.weight.grad, **close)
    torch.testing.assert_close(block.attention_norm.weight.grad, layer.input_layernorm.weight.grad, **close)


@pytest.mark.parametrize('tied', [True, False])
def test_gpt2_is_that_of_transformers(tied):
    transformers = pytest.importorskip('transformers')
    ours = lively(GPT2Network(VOCABULARY, 24, 2, 3, LENGTH, tied=tied))
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=24, n_layer=2, n_head=3, tie_word_embeddings=tied
        )
    ).eval()
    names = {'ln_1': 'attention_norm', 'attn.c_attn': 'qkv', 'attn.c_proj': 'out', 'ln_2': 'ffn_norm'}
    names |= {'mlp.c_fc': 'up', 'mlp.c_proj': 'down'}
    with torch.no_grad():
        theirs.transformer.wte.weight.copy_(ours.embedding.weight)
        theirs.transformer.wpe.weight.copy_(ours.positions)
        theirs.lm_head.weight.copy_(ours.head.weight)
        theirs.transformer.ln_f.load_state_dict(ours.norm.state_dict())
        for layer, block in zip(theirs.transformer.h, ours.blocks, strict=True):
            for there, here in names.items():
                target, source = layer.get_submodule(there), block.get_submodule(here)
                target.weight.copy_(source.weight.t() if source.weight.ndim == 2 else source.weight)
                target.bias.copy_(source.bias)
        ids = torch.randint(VOCABULARY, (3, 13))
        torch.testing.assert_close(ours(ours.embed(ids)), theirs(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('rows', [VOCABULARY, 20, 50])
@pytest.mark.parametrize('name', THEIRS)
def test_weights_of_a_folder_with_another_vocabulary(name, rows, tmp_path):
    """Common rows are loaded and other rows keep their values; all other tensors must fit."""
    transformers = pytest.importorskip('transformers')
    network = THEIRS[name]().eval()
    config = network.model.config.__class__(**{**network.model.config.to_dict(), 'vocab_size': rows})
    source = getattr(transformers, type(network.model).__name__)(config).eval()
    source.save_pretrained(tmp_path)
    network.weights = str(tmp_path)
    fresh = network.model.get_input_embeddings().weight.detach().clone()
    assert [file.name for file in network.pretrained_files()] == ['model.safetensors']
    network.load_pretrained()
    both = min(rows, VOCABULARY)
    found = network.model.get_input_embeddings().weight
    assert torch.equal(found[:both], source.get_input_embeddings().weight[:both])
    assert torch.equal(found[both:], fresh[both:])
    x = network.embed(torch.randint(both, (2, 5)))
    with torch.no_grad():
        theirs = source(inputs_embeds=x).logits
        torch.testing.assert_close(network(x)[..., :both], theirs[..., :both], rtol=1e-5, atol=1e-5)


def test_weights_of_another_depth_are_refused(tmp_path):
    transformers = pytest.importorskip('transformers')
    config = transformers.GPT2Config(vocab_size=5, n_positions=LENGTH, n_embd=24, n_layer=3, n_head=3)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    network = THEIRS['hf gpt2']()
    network.weights = str(tmp_path)
    with pytest.raises(UserError, match='does not fit GPT2LMHeadModel'):
        network.load_pretrained()
    network.weights = str(tmp_path / 'nowhere')
    with pytest.raises(UserError, match=r'has no model\.safetensors'):
        network.load_pretrained()


def test_missing_transformers_is_named(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'transformers', None)
    with pytest.raises(UserError) as caught:
        THEIRS['hf llama']()
    assert 'pip install' in caught.value.hint


def test_unknown_settings_are_refused():
    pytest.importorskip('transformers')
    with pytest.raises(ConfigError, match='hiden_size'):
        HuggingFaceLlama(VOCABULARY, LENGTH, dict(hiden_size=24))
    with pytest.raises(ConfigError, match='vocab_size'):
        HuggingFaceLlama(VOCABULARY, LENGTH, dict(vocab_size=24))


# sizes and errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'millions'), [('B', 110.888448), ('L', 342.910976), ('XL', 774.699520), ('XXL', 1411), ('3B', 3101)]
)
def test_sizes_have_the_published_parameters(name, millions):
    """B, L, XL exactly as the key lists count them (with the table of 1001 classes); the paper rounds the others."""
    with torch.device('meta'):
        network = LlamaNetwork(16384, **llama_size(name), grid=(16, 16), prefix=1)
    count = sum(parameter.numel() for parameter in network.parameters()) + 1001 * network.dim
    assert count / 1e6 == pytest.approx(millions, abs=0 if millions < 1000 else 20)
    assert network.ffn_dim == feed_forward_width(network.dim)


@pytest.mark.parametrize(
    'settings',
    [
        dict(dim=25, heads=3, length=8),
        dict(dim=24, heads=3, kv_heads=2, length=8),
        dict(dim=24, heads=4, grid=(2, 2)),  # six channels are three pairs
        dict(dim=24, heads=3),
        dict(dim=24, heads=3, grid=(2, 2), length=6),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(settings):
    with pytest.raises(ConfigError):
        LlamaNetwork(VOCABULARY, depth=1, **settings)


def test_too_many_positions_are_refused(own):
    x = embedded(own, 1, LENGTH + 1)
    with pytest.raises(ConfigError, match='17 positions'):
        own(x)
    with pytest.raises(ConfigError, match='17 positions'):
        own.make_cache(1, LENGTH + 1)
    with pytest.raises(RunFailure, match='position 4 of a cache with 4'):
        own.step(x[:, :1], 4, own.make_cache(1, 4))
    with pytest.raises(ConfigError, match='no size'):
        llama_size('XM')
