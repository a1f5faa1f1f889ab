"""LlamaGen: its filters keep the same tokens, its transformer generates the same tokens with guidance, its loss is ours."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from tests.published import Golden
from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.generators.autoregressive import Autoregressive
from vq.generators.networks.llama import LlamaNetwork
from vq.sampling.guidance import constant, interval
from vq.sampling.tokens import candidates, greedy


def test_llamagen_sampling_filter(golden):
    peer = golden('llamagen_sampling_filter')
    logits = peer['in/logits']
    cases = [match for name in peer.arrays if (match := re.fullmatch(r'out/kept_(k(\d+)_p([\d.]+))', name))]
    assert len(cases) == 6
    for case in cases:
        weights, ids = candidates(logits, 1.0, int(case[2]), float(case[3]), 0.0)
        if ids is not None:
            weights = torch.zeros_like(logits).scatter(1, ids, weights)
        assert torch.equal(weights > 0, peer[f'out/kept_{case[1]}']), case[1]
        probabilities = weights / weights.sum(1, keepdim=True)
        torch.testing.assert_close(probabilities, peer[f'out/probs_{case[1]}'], rtol=1e-5, atol=1e-6)


def llamagen_model(peer: Golden) -> Autoregressive:
    """Their names mapped to ours explicitly, so that the test does not depend on the converter."""
    state, config = peer.state, peer.meta['config']
    network = LlamaNetwork(
        config['vocab_size'], config['dim'], config['n_layer'], config['n_head'], grid=(4, 4), prefix=1, multiple_of=16
    )
    model = Autoregressive(network, (4, 4), (config['vocab_size'],), config['num_classes'], label_drop=0.1).eval()
    parts = {'attention.wqkv': 'qkv', 'attention.wo': 'out', 'feed_forward.w2': 'down'}
    parts |= {'attention_norm': 'attention_norm', 'ffn_norm': 'ffn_norm'}
    ours = {
        'class_embedding.weight': state['cls_embedding.embedding_table.weight'],
        'network.embedding.weight': state['tok_embeddings.weight'],
        'network.norm.weight': state['norm.weight'],
        'network.head.weight': state['output.weight'],
    }
    for layer in range(config['n_layer']):
        theirs = f'layers.{layer}'
        for old, new in parts.items():
            ours[f'network.blocks.{layer}.{new}.weight'] = state[f'{theirs}.{old}.weight']
        gate_up = [state[f'{theirs}.feed_forward.{name}.weight'] for name in ('w1', 'w3')]
        ours[f'network.blocks.{layer}.gate_up.weight'] = torch.cat(gate_up)
    model.load_state_dict(ours)
    return model


@pytest.mark.parametrize('scale', [1.0, 1.5, 3.0])
@pytest.mark.parametrize('last', [None, 5])
def test_llamagen_greedy_generation(golden, scale, last):
    """``cfg_interval`` 5 guides tokens 0 to 6."""
    peer = golden('llamagen_gpt_a')
    guidance = partial(constant, scale=scale) if last is None or scale == 1 else partial(interval, scale=scale, last=last + 1)
    name = f'out/greedy_cfg{scale}' + ('' if last is None or scale == 1 else f'_interval{last}')
    tokens = llamagen_model(peer).generate(Wanted([0, 1, 2], 0, Condition(peer['in/generate_labels'])), greedy, guidance)
    assert torch.equal(tokens.flatten(1), peer[name])


def test_llamagen_training_loss(golden):
    peer = golden('llamagen_gpt_a')
    predicted = llamagen_model(peer)(peer['in/tokens'].view(-1, 4, 4), Condition(peer['in/labels']))
    torch.testing.assert_close(predicted.logits, peer['out/logits_train'], rtol=1e-4, atol=1e-5)
    loss = F.cross_entropy(predicted.logits.flatten(0, 1), predicted.targets.flatten())
    torch.testing.assert_close(loss, peer['out/loss_train'], rtol=1e-5, atol=1e-6)
