"""LPIPS against the lpips package; its files, modes and precision."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable

import lpips
import pytest
import torch
import torchvision
from torch import Tensor

from vq.core.errors import ConfigError, UserError
from vq.io.published import catalog
from vq.losses import perceptual
from vq.losses.perceptual import LPIPSLoss
from vq.nn.perceptual_backbones import KINDS, perceptual_backbone
from vq.registries import VQLossRegistry

NETS = ('vgg', 'alex', 'squeeze')
FILES = {
    'vgg': 'vgg16-397923af.pth',
    'alex': 'alexnet-owt-7be5be79.pth',
    'squeeze': 'squeezenet1_1-b8a52dc0.pth',
}


@pytest.fixture(scope='module')
def peers() -> dict[str, lpips.LPIPS]:
    """The package's own modules with its own heads, on torchvision's layers with random weights."""
    found = {}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # the package asks torchvision in its older words
        # the first Linear of VGG's classifier alone takes seconds to draw, and is thrown away
        patch.setattr(torch.nn.Linear, 'reset_parameters', lambda self: None)
        patch.setattr(torch.nn.init, 'normal_', lambda tensor, *args, **kwargs: tensor)
        for net in NETS:
            torch.manual_seed(1)
            found[net] = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    return found


def torchvision_state(peer: lpips.LPIPS) -> dict[str, Tensor]:
    """The peer's network under the keys of torchvision's file."""
    state = {
        re.sub(r'net\.slice\d\.', 'features.', name): value
        for name, value in peer.state_dict().items()
        if name.startswith('net.')
    }
    return {**state, 'classifier.0.weight': torch.ones(2, 2)}


def heads_state(peer: lpips.LPIPS) -> dict[str, Tensor]:
    return {name: value for name, value in peer.state_dict().items() if re.match(r'lin\d', name)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of pretrained files, and a function to save files in it."""
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))

    def save(path: str, state: dict[str, Tensor]) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, tmp_path / path)

    return save


@pytest.fixture
def loaded(folder, peers) -> Callable[[str], LPIPSLoss]:
    """Ours with the peer's weights, loaded from files at the default paths."""

    def load(net: str) -> LPIPSLoss:
        folder(f'torchvision/{FILES[net]}', torchvision_state(peers[net]))
        folder(f'lpips/{net}.pth', heads_state(peers[net]))
        loss = LPIPSLoss(net=net)
        loss.load_pretrained()
        return loss

    return load


def images(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two batches in [-1, 1], the second a disturbed first."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator) * 2 - 1
    return (target + 0.3 * torch.randn(shape, generator=generator)).clamp(-1, 1), target


# against the package


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(3, 3, 33, 47), (2, 3, 64, 40)])
@pytest.mark.parametrize('net', NETS)
def test_equals_the_lpips_package(net, shape, loaded, peers):
    """In float64, where rounding flips no ReLU; then the value in float32."""
    ours, peer = loaded(net), peers[net]
    prediction, target = images(*shape)
    value = ours(prediction, target)
    torch.testing.assert_close(ours.distance(prediction, target), peer(prediction, target).flatten(), rtol=1e-5, atol=1e-6)
    assert value.dtype == torch.float32 and value.shape == ()
    torch.testing.assert_close(value, peer(prediction, target).mean(), rtol=1e-5, atol=1e-6)

    ours, x = ours.double(), prediction.double().requires_grad_()
    theirs = copy.deepcopy(peer).double()(x, target.double()).flatten()
    mine = ours.distance(x, target.double())
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    factors = torch.linspace(-1, 2, shape[0], dtype=torch.float64)
    expected = torch.autograd.grad((theirs * factors).sum(), x)[0]
    gradient = torch.autograd.grad((mine * factors).sum(), x)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))


def test_gradient_in_fp32(loaded, peers):
    """Equal to the package, up to a few ReLUs and maxima that rounding flips."""
    ours = loaded('alex')
    prediction, target = images(2, 3, 48, 48)
    x = prediction.requires_grad_()
    expected = torch.autograd.grad(peers['alex'](x, target).mean(), x)[0]
    (gradient,) = torch.autograd.grad(ours(x, target), x)
    assert gradient.dtype == torch.float32
    assert (gradient - expected).norm() < 1e-2 * expected.norm()


def test_difference_of_features_has_the_gradient_of_finite_differences():
    """Also at positions where all channels are zero in one of the two, or in both."""
    generator = torch.Generator().manual_seed(0)
    features, goal = torch.rand(2, 2, 3, 4, 5, dtype=torch.float64, generator=generator).unbind()
    head = torch.rand(1, 3, 1, 1, dtype=torch.float64, generator=generator)
    goal[:, :, 1] = 0
    difference = perceptual._Difference.apply
    assert torch.autograd.gradcheck(lambda a: difference(a, goal, head), features.requires_grad_())

    zero = features.detach().clone()
    zero[0, :, :2] = 0
    (gradient,) = torch.autograd.grad(difference(zero.requires_grad_(), goal, head).sum(), zero)
    assert gradient.isfinite().all() and not gradient[0, :, :2].any() and gradient[1].any()


@pytest.mark.slow
@pytest.mark.parametrize('net', NETS)
def test_equal_images_have_no_distance(net):
    image = images(2, 3, 33, 47)[0].requires_grad_()
    distance = LPIPSLoss(net=net).distance(image, image.detach())
    assert (distance.abs() < 1e-12).all()
    assert torch.autograd.grad(distance.sum(), image)[0].abs().max() < 1e-8


# a frozen part


def test_gradient_goes_to_the_prediction_alone():
    loss = LPIPSLoss(net='squeeze')
    prediction, target = (image.requires_grad_() for image in images(1, 3, 32, 32))
    loss(prediction, target).backward()
    assert prediction.grad is not None and prediction.grad.any()
    assert target.grad is None
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in loss.parameters())


def test_each_image_goes_through_the_network_once():
    loss, calls = LPIPSLoss(net='alex'), []
    loss.backbone[0].register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    prediction, target = images(1, 3, 32, 32)
    loss(prediction.requires_grad_(), target).backward()
    assert sorted(calls) == [False, True], 'the target without gradient, the prediction with it'


def test_train_stays_eval_and_nothing_is_random():
    loss = LPIPSLoss(net='alex').train()
    outer = torch.nn.ModuleList([loss]).train()
    assert outer.training and not any(module.training for module in loss.modules())
    assert not any(isinstance(module, torch.nn.Dropout | torch.nn.Linear) for module in loss.modules())
    pair = images(1, 3, 32, 32)
    assert torch.equal(loss(*pair), loss(*pair))


def test_weights_before_loading_follow_the_seed_and_heads_are_not_negative():
    def build(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return LPIPSLoss(net='squeeze').state_dict()

    first, again, other = build(3), build(3), build(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first['backbone.0.weight'], other['backbone.0.weight'])
    assert all((value >= 0).all() and value.any() for name, value in first.items() if name.startswith('heads.'))


# structure


@pytest.mark.parametrize('net', NETS)
def test_state_dict_is_torchvisions_features_and_the_heads(net):
    """No classifier, no constants; shapes are those of torchvision's own model."""
    with torch.device('meta'):
        loss = LPIPSLoss(net=net)
        model = getattr(torchvision.models, {'vgg': 'vgg16', 'alex': 'alexnet', 'squeeze': 'squeezenet1_1'}[net])()
    expected = {f'backbone.{name}': value.shape for name, value in model.features.state_dict().items()}
    expected |= {f'heads.{index}': (1, channels, 1, 1) for index, channels in enumerate(KINDS[net].channels)}
    assert {name: value.shape for name, value in loss.state_dict().items()} == expected
    assert all(value.is_meta for value in [*loss.state_dict().values(), *loss.buffers()])
    distance = loss.distance(*torch.empty(2, 5, 3, 64, 64, device='meta'))
    assert distance.shape == (5,) and distance.is_meta


@pytest.mark.slow
@pytest.mark.parametrize('net', NETS)
def test_activations_are_those_of_torchvisions_features(net):
    """Later layers do not overwrite activations in place."""
    torch.manual_seed(0)
    backbone, image = perceptual_backbone(net), images(2, 3, 40, 35)[0]
    kept = image.clone()
    activations = backbone(image)
    assert torch.equal(image, kept)
    features, expected = image, []
    for layer in backbone:
        features = layer(features.clone())
        expected.append(features.clone())
    assert len(activations) == len(backbone.channels) == (7 if net == 'squeeze' else 5)
    for activation, tap, channels in zip(activations, backbone.taps, backbone.channels, strict=True):
        assert activation.shape[1] == channels
        torch.testing.assert_close(activation, expected[tap])
        assert (activation >= 0).all() and (activation == 0).any(), 'after a ReLU'


def test_weight_and_network_come_from_the_config():
    loss = VQLossRegistry.build(dict(type='LPIPSLoss', weight=0.1, net='squeeze', heads_file='mine.pth'))
    assert (loss.weight, loss.net, loss.heads_file) == (0.1, 'squeeze', 'mine.pth')
    with pytest.raises(ConfigError, match='resnet'):
        LPIPSLoss(net='resnet')


@pytest.mark.parametrize('net', NETS)
def test_smallest_image(net):
    """The limit is that of the network: one pixel less fails inside it."""
    loss, least = LPIPSLoss(net=net), KINDS[net].smallest
    assert loss(*images(1, 3, least, 64)).isfinite()
    with pytest.raises(RuntimeError):
        loss.backbone(torch.zeros(1, 3, 64, least - 1))
    with pytest.raises(UserError, match=f'{least - 1} x 64 are too small') as raised:
        loss(*images(1, 3, least - 1, 64))
    assert f'at least {least} x {least}' in raised.value.hint


def test_images_of_two_shapes_are_not_stretched_to_each_other():
    with pytest.raises(ValueError, match='equal shape'):
        LPIPSLoss(net='squeeze')(torch.zeros(2, 3, 32, 32), torch.zeros(1, 3, 32, 32))


# precision


@pytest.mark.slow
@pytest.mark.parametrize('net', NETS)
def test_bf16_autocast_is_close_and_compares_in_fp32(net):
    torch.manual_seed(0)
    loss = LPIPSLoss(net=net)
    prediction, target = images(2, 3, 48, 48)
    x = prediction.requires_grad_()
    expected = loss.distance(x, target)
    seen = []
    loss.backbone[0].register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        distance = loss.distance(x, target)
    assert distance.dtype == torch.float32 and set(seen) == {torch.bfloat16}, 'the network itself runs in bf16'
    torch.testing.assert_close(distance, expected, rtol=2e-2, atol=0)
    (exact,) = torch.autograd.grad(expected.sum(), x)
    (rounded,) = torch.autograd.grad(distance.sum(), x)
    assert torch.cosine_similarity(exact.flatten(), rounded.flatten(), 0) > 0.9


def test_small_differences_survive_bf16_features():
    """Unit vectors that differ by 1e-3, which is far below the resolution of bf16."""
    features, goal = torch.full((1, 2, 1, 1), 1.0), torch.full((1, 2, 1, 1), 1.0)
    goal[0, 0] += 2**-6
    head = torch.ones(1, 2, 1, 1)
    exact = perceptual._Difference.apply(features.double(), goal.double(), head.double())
    rounded = perceptual._Difference.apply(features.bfloat16(), goal.bfloat16(), head)
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-3, atol=0)


# files


@pytest.mark.parametrize('naming', ['lpips', 'reference', 'taming'])
def test_heads_of_every_naming(naming, folder, peers):
    """The package's names, the reference toolkit's converted names, and a file of the whole module."""
    state = heads_state(peers['alex'])
    if naming == 'reference':
        state = {f'{name[3]}.weight': value for name, value in state.items()}
    elif naming == 'taming':
        state = peers['alex'].state_dict()
    folder('my/heads.pth', state)
    folder('my/alex.pth', torchvision_state(peers['alex']))
    loss = LPIPSLoss(net='alex', backbone_file='my/alex.pth', heads_file='my/heads.pth')
    loss.load_pretrained()
    for index, head in enumerate(loss.heads):
        assert torch.equal(head, peers['alex'].state_dict()[f'lin{index}.model.1.weight'])
    assert torch.equal(loss.backbone[10].bias, peers['alex'].state_dict()['net.slice5.10.bias'])


def test_files_are_below_the_folder_of_pretrained_files(tmp_path, monkeypatch):
    """They are listed before they exist; a dry run does not need them."""
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))
    for net in NETS:
        assert LPIPSLoss(net=net).pretrained_files() == [tmp_path / 'torchvision' / FILES[net], tmp_path / f'lpips/{net}.pth']


def test_missing_file_is_named_with_the_command_that_fetches_it(folder, peers, monkeypatch):
    remote = catalog.RemoteFile('http://example.org/heads', 'lpips/alex.pth', None, 'http://example.org')
    monkeypatch.setattr(catalog, 'CATALOG', (catalog.Published('the-heads', 'linear heads', (remote,)),))
    loss = LPIPSLoss(net='alex')
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    with pytest.raises(UserError, match=FILES['alex']):
        loss.load_pretrained()
    folder(f'torchvision/{FILES["alex"]}', torchvision_state(peers['alex']))
    with pytest.raises(UserError, match=r'lpips/alex\.pth') as raised:
        loss.load_pretrained()
    assert 'vq.tools.prepare_checkpoints the-heads' in raised.value.hint
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items()), 'nothing was half loaded'


@pytest.mark.parametrize('net', NETS)
def test_shipped_defaults_are_in_the_catalog(net):
    """Otherwise error messages could not tell how to get them."""
    assert catalog.owner_of(perceptual.BACKBONE_FILES[net]) and catalog.owner_of(perceptual.HEADS_FILES[net])


@pytest.mark.slow
def test_wrong_keys_are_named(folder, peers):
    good, heads = torchvision_state(peers['alex']), heads_state(peers['alex'])
    loss = LPIPSLoss(net='alex', backbone_file='alex.pth', heads_file='heads.pth')

    def complaint(backbone: dict[str, Tensor], linear: dict[str, Tensor]) -> str:
        folder('alex.pth', backbone)
        folder('heads.pth', linear)
        with pytest.raises(UserError) as raised:
            loss.load_pretrained()
        return str(raised.value)

    less = {name: value for name, value in good.items() if name != 'features.6.bias'}
    text = complaint({**less, 'layer1.weight': torch.ones(1)}, heads)
    assert 'alex.pth' in text and 'missing: 6.bias' in text and 'unknown: layer1.weight' in text
    text = complaint({**good, 'features.6.bias': torch.ones(7)}, heads)
    assert '6.bias (7,) instead of (384,)' in text and FILES['alex'] in text
    text = complaint(good, heads_state(peers['vgg']))
    assert 'heads.pth' in text and '1 (1, 128, 1, 1) instead of (1, 192, 1, 1)' in text
    text = complaint(good, heads_state(peers['squeeze']))
    assert 'unknown: 5, 6' in text
    text = complaint(good, {'lin0.model.1.weight': heads['lin0.model.1.weight'], 'other': torch.ones(1)})
    assert 'missing: 1, 2, 3, 4' in text and 'unknown: other' in text
