"""LlamaGen's transformers: with its weights, our network has the same logits, losses, gradients and greedy tokens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.published import Golden, read_golden
from vq.generators.networks.llama import LlamaNetwork
from vq.io.published.llamagen_gpt import convert

NAMES = ['llamagen_gpt_a', 'llamagen_gpt_gqa']


class Model:
    """The network and the class embedding of a converted file."""

    def __init__(self, peer: Golden) -> None:
        theirs = peer.meta['config']
        converted = convert(peer.state, image_size=16 * int(theirs['block_size'] ** 0.5), heads=theirs['n_head'])
        settings = {key: value for key, value in converted.generator['network'].items() if key != 'type'}
        assert settings['kv_heads'] == (theirs['n_kv_head'] or theirs['n_head'])
        assert settings['depth'] == theirs['n_layer'] and settings['dim'] == theirs['dim']
        assert converted.generator['classes'] == theirs['num_classes']
        self.network = LlamaNetwork(**{**settings, 'dropout': 0.0, 'token_dropout': 0.0, 'norm_eps': theirs['norm_eps']})
        ours = {key.removeprefix('generator.'): value for key, value in converted.tensors.items()}
        self.classes = ours.pop('class_embedding.weight').clone().requires_grad_()
        self.network.load_state_dict({key.removeprefix('network.'): value for key, value in ours.items()})

    def sequence(self, tokens: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([self.classes[labels][:, None], self.network.embed(tokens)], dim=1)


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[Golden, Model]:
    peer = read_golden(request.param)
    return peer, Model(peer)


def close(ours: Tensor, theirs: Tensor, rtol: float = 1e-4) -> None:
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-5 * theirs.abs().max().item())


def test_rope_table(case):
    peer, model = case
    close(model.network.rope.table, peer['out/rope_table'])


def test_logits(case):
    peer, model = case
    tokens, labels = peer['in/tokens'], peer['in/labels']
    close(model.network.eval()(model.sequence(tokens, labels)), peer['out/logits_eval'])
    close(model.network.train()(model.sequence(tokens[:, :-1], labels)), peer['out/logits_train'])


def test_losses_and_gradients(case):
    peer, model = case
    tokens = peer['in/tokens']
    logits = model.network.train()(model.sequence(tokens[:, :-1], peer['in/labels']))
    each = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction='none').view(tokens.shape)
    valid = peer['in/valid'].float()[:, None].expand_as(each)
    close(each.mean(), peer['out/loss_train'])
    close((each * valid).sum() / valid.sum().clamp(min=1), peer['out/loss_train_valid_mask'])
    each.mean().backward()
    close(model.network.blocks[0].qkv.weight.grad, peer['out/grad_layer0_wqkv'], rtol=1e-3)
    close(model.network.embedding.weight.grad, peer['out/grad_tok_embeddings'], rtol=1e-3)
    close(model.classes.grad, peer['out/grad_class_table'], rtol=1e-3)


def test_cached_logits(case):
    """Its cached generation does not support grouped heads; ours equals its uncached logits for them too."""
    peer, model = case
    sequence = model.sequence(peer['in/tokens'], peer['in/labels']).detach()
    cache = model.network.make_cache(*sequence.shape[:2])
    steps = [model.network.step(sequence[:, t : t + 1], t, cache) for t in range(sequence.shape[1])]
    close(torch.stack(steps, dim=1), peer['out/logits_eval'])


GREEDY = [(1.0, None), (1.5, None), (1.5, 5), (3.0, None), (3.0, 5)]


@pytest.mark.parametrize(('scale', 'interval'), GREEDY)
def test_greedy_tokens_with_guidance(golden, scale, interval):
    """Batch [class; null]; with an interval K guidance is on for the tokens 0 to K + 1."""
    peer = golden('llamagen_gpt_a')
    model, labels = Model(peer), peer['in/generate_labels']
    both = torch.cat([labels, torch.full_like(labels, peer.meta['config']['num_classes'])])
    count = peer['in/tokens'].shape[1]
    x = model.classes.detach()[both][:, None]
    cache = model.network.make_cache(len(both), count)
    tokens = []
    for t in range(count):
        logits, null = model.network.step(x, t, cache).chunk(2)
        if interval is None or t <= interval + 1:
            logits = null + scale * (logits - null)
        tokens.append(logits.argmax(-1))
        x = model.network.embed(tokens[-1].repeat(2)[:, None])
    name = f'out/greedy_cfg{scale}' + (f'_interval{interval}' if interval is not None else '')
    assert torch.equal(torch.stack(tokens, dim=1), peer[name])
