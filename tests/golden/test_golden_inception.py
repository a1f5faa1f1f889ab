"""FID's Inception network reproduces the figures of a peer, with weights from a formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.golden.test_golden_lpips import formula
from vq.teachers.inception import FIDInception


@pytest.mark.slow
def test_features_and_maps(golden):
    peer = golden('fid_inception_formula_weights')
    weights = {'fc.weight': torch.zeros(1008, 2048)}  # the peer has no logits
    for name, shape, index, std, kind in peer.meta['layers']:
        weights[name] = formula(index, shape, std) + (kind == 'one_plus')
        np.testing.assert_allclose(weights[name].flatten()[:4], peer['out/weight_heads'][index], rtol=1e-5, atol=1e-7)
    network = FIDInception('pytorch_fid')
    network.fill(weights, 'the formula')
    image = peer['in/image_uint8']
    expected = peer['out/pool3_features']
    torch.testing.assert_close(network(image).pooled, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    for block, found in enumerate(network.maps(network.prepare(image)).blocks):
        torch.testing.assert_close(found.mean((2, 3)), peer[f'out/block{block}_mean'], rtol=1e-5, atol=1e-6)
