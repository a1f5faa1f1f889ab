"""LPIPS as a metric, against the lpips package with the same random weights."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from tests.metrics.passes import batch_of, measure
from vq.core.errors import UserError
from vq.core.records import Outputs, to_float, to_uint8
from vq.registries import VQMetricRegistry


def make(net):
    torch.manual_seed(5)
    return VQMetricRegistry.build(dict(type='LPIPSMetric', net=net))


def peer_of(metric, net):
    """The package's network, with our weights."""
    lpips = pytest.importorskip('lpips')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        peer = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False, eval_mode=True)
    convolutions = [part for part in peer.net.modules() if isinstance(part, nn.Conv2d)]
    ours = [part for part in metric.network.backbone.modules() if isinstance(part, nn.Conv2d)]
    for theirs, own in zip(convolutions, ours, strict=True):
        theirs.load_state_dict(own.state_dict())
    for theirs, own in zip(peer.lins, metric.network.heads, strict=True):
        theirs.model[-1].weight.data.copy_(own)
    return peer


def pictures(count=3, size=(67, 40)):
    image = torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(3))
    return image, to_float(image) + noise * torch.linspace(0.05, 0.6, count)[:, None, None, None]


@pytest.mark.slow
@pytest.mark.parametrize('net', ['alex', 'squeeze', 'vgg'])
def test_against_the_package(net):
    metric, (image, reconstruction) = make(net), pictures()
    with torch.no_grad():
        expected = peer_of(metric, net)(to_float(image), to_float(to_uint8(reconstruction))).mean().item()
    for cuts in ([[0, 1, 2]], [[2], [0, 1], [1]]):
        metric.reset()
        found = measure(metric, cuts, image, reconstruction=reconstruction)
        assert found == {f'lpips_{net}': pytest.approx(expected, rel=1e-4)}


def test_autocast_outside_does_not_matter():
    metric, (image, reconstruction) = make('alex'), pictures()
    plain = measure(metric, [[0, 1, 2]], image, reconstruction=reconstruction)
    metric.reset()
    with torch.autocast('cpu', torch.bfloat16):
        assert measure(metric, [[0, 1, 2]], image, reconstruction=reconstruction) == plain


def test_small_images_and_missing_files(monkeypatch, tmp_path):
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))
    metric = make('alex')
    with pytest.raises(UserError, match='too small'):
        metric.update(
            batch_of([0], torch.zeros(1, 3, 20, 20, dtype=torch.uint8)), Outputs(reconstruction=torch.zeros(1, 3, 20, 20))
        )
    with pytest.raises(UserError, match='missing'):
        metric.network.load_pretrained()  # as a runner does
