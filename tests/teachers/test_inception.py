"""FID's Inception network against the two common packages, with the same random weights."""

from __future__ import annotations

import importlib.util
from unittest import mock

import pytest
import torch
from torch import Tensor

from tests.teachers.inception_weights import published_layout
from vq.core.errors import UserError
from vq.interfaces import Features
from vq.metrics.features.blocks import Blocks
from vq.metrics.features.store import FeatureStore
from vq.nn.legacy_resize import resize_like_tensorflow
from vq.registries import VQFeatureNetworkRegistry
from vq.teachers.inception import FIDInception


@pytest.fixture(scope='module')
def weights() -> dict[str, Tensor]:
    return published_layout(FIDInception(), seed=0)


def ours(weights: dict[str, Tensor], preprocessing: str, precision: str = 'fp32') -> FIDInception:
    network = VQFeatureNetworkRegistry.build(
        {'type': 'FIDInception', 'preprocessing': preprocessing, 'precision': precision}, 'network'
    )
    network.fill(weights, 'random')
    return network


def images(count: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def close(found: Tensor | None, expected: Tensor, tolerance: float) -> None:
    assert found is not None and found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize('size', [(299, 299), (64, 48), (333, 310)])
def test_equals_pytorch_fid(weights, size):
    package = pytest.importorskip('pytorch_fid.inception')
    load = torch.nn.Module.load_state_dict
    with (
        mock.patch.object(package, 'load_state_dict_from_url', return_value=weights),
        mock.patch('torch.nn.Module.load_state_dict', lambda self, state, **_: load(self, state, strict=False)),
    ):
        peer = package.InceptionV3([3]).eval()
    batch = images(2, *size)
    with torch.no_grad():
        close(ours(weights, 'pytorch_fid')(batch).pooled, peer(batch.float() / 255)[0].flatten(1), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('size', [(299, 299), (70, 41)])
def test_equals_torch_fidelity(weights, size, tmp_path):
    package = pytest.importorskip('torch_fidelity.feature_extractor_inceptionv3')
    torch.save(weights, tmp_path / 'weights.pth')
    peer = package.FeatureExtractorInceptionV3(
        'inception', ['2048', 'logits_unbiased'], feature_extractor_weights_path=str(tmp_path / 'weights.pth')
    )
    batch = images(2, *size)
    with torch.no_grad():
        pooled, logits = peer(batch)
    found = ours(weights, 'tensorflow')(batch)
    close(found.pooled, pooled, 1e-5)
    close(found.logits, logits, 1e-5)


@pytest.mark.skipif(importlib.util.find_spec('torch_fidelity') is None, reason='torch_fidelity is not installed')
@pytest.mark.parametrize('size', [(7, 12), (299, 299), (640, 333)])
def test_resize_is_that_of_tensorflow(size):
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    x = images(2, *size).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    torch.testing.assert_close(resize_like_tensorflow(x, 299), expected, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_spatial_features_are_seven_channels_of_the_first_branch(weights):
    """Mixed_6d's 1x1 branch on the output of Mixed_6c: mixed_6/conv in TensorFlow's graph."""
    network = ours(weights, 'tensorflow')
    seen: list[Tensor] = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, output: seen.append(output))
    found = network(images(2, 40, 40))
    assert found.spatial is not None and found.spatial.shape == (2, 7 * 17 * 17)
    torch.testing.assert_close(found.spatial.view(2, 7, 17, 17), seen[0][:, :7])


@pytest.mark.slow
def test_an_image_does_not_depend_on_its_batch(weights):
    network, batch = ours(weights, 'tensorflow'), images(5, 33, 47)
    whole, alone = network(batch), [network(image[None]) for image in batch]
    for name in Features._fields:
        close(torch.cat([getattr(found, name) for found in alone]), getattr(whole, name), 1e-6)


def collected(network: FIDInception, batch: Tensor, order: list[int], size: int) -> list[Tensor]:
    store = FeatureStore((), Features._fields)
    feed = Blocks(network, store)
    for start in range(0, len(order), size):
        part = torch.tensor(order[start : start + size])
        feed.add(part, batch[part])
    feed.finish()
    found = store.finish()
    return [found.rows(name) for name in Features._fields]  # type: ignore[misc]


@pytest.mark.slow
def test_in_blocks_features_are_equal_to_the_last_bit(weights):
    """For any batches and order, so that figures of these features are equal too. In blocks of the size that users get."""
    network, batch = ours(weights, 'tensorflow'), images(37, 24, 24)
    plain = collected(network, batch, [*range(37)], 37)
    other = collected(network, batch, torch.randperm(37, generator=torch.Generator().manual_seed(0)).tolist(), 5)
    for first, second in zip(plain, other, strict=True):
        assert torch.equal(first, second)


@pytest.mark.slow
def test_bf16_is_named_and_near(weights):
    network, batch = ours(weights, 'tensorflow', 'bf16'), images(2, 64, 64)
    exact, found = ours(weights, 'tensorflow')(batch).pooled, network(batch).pooled
    assert 0 < (found - exact).norm() / exact.norm() < 3e-2
    assert network.description['precision'] == 'bf16' and found.dtype == torch.float32


@pytest.mark.slow
def test_it_stays_as_it_is(weights):
    network = ours(weights, 'tensorflow').train()
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize('image', [torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)])
def test_other_images_are_refused(image):
    with pytest.raises(UserError, match='uint8 images'):
        FIDInception()(image)


def test_another_network_is_refused(weights):
    other = dict(weights, **{'fc.weight': torch.zeros(1000, 2048)})
    del other['Conv2d_1a_3x3.bn.bias']
    with pytest.raises(UserError, match=r'is not the Inception network of FID') as caught:
        FIDInception().fill(other, 'some.pth')
    assert 'Conv2d_1a_3x3.bn.bias' in str(caught.value) and 'fc.weight of the shape (1000, 2048)' in str(caught.value)
