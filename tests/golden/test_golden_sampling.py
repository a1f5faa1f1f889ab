"""Filters keep the tokens that LlamaGen's keep, with the same probabilities."""

from __future__ import annotations

import re

import torch

from vq.sampling.tokens import candidates


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
