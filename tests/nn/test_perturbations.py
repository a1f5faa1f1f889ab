"""Perturbations of latents: their shares and deviations, and that evaluation leaves latents alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.runners.test_no_waiting import nobody_waits
from vq.core.errors import ConfigError
from vq.interfaces import Coding
from vq.quantizers import FiniteScalarQuantizer, GroupedQuantizer, VectorQuantizer
from vq.registries import VQPerturbationRegistry

KINDS: list[dict[str, Any]] = [
    dict(type='GaussianNoise'),
    dict(type='GaussianMix', gamma=0.5, deviation=3.0),
    dict(type='BoundedNoise', level=0.5),
    dict(type='BoundedNoise', level=0.5, share=0.5),
    dict(type='TokenMasking', channels=6),
    dict(type='TokenMasking', low=-0.1, high=0.7, learned=False),
    dict(type='ChannelDrop', least=2, step=2),
    dict(type='TokenDrop', channels=6),
    dict(type='TokenDrop', least=3, among='all', learned=False),
    dict(type='PerturbationChain', parts=[dict(type='ChannelDrop', least=1), dict(type='GaussianNoise')]),
]


def build(settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    with torch.device('meta'):
        VQPerturbationRegistry.build(settings)
    return VQPerturbationRegistry.build(settings)


def ids(settings: dict[str, Any]) -> str:
    return '-'.join(str(value) for value in settings.values() if not isinstance(value, list))


@pytest.mark.parametrize('settings', KINDS, ids=ids)
@pytest.mark.parametrize('cells', [(3, 5), (7,)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_training_changes_and_evaluation_does_not(settings: Any, cells: tuple[int, ...], dtype: torch.dtype) -> None:
    part, z = build(settings), torch.randn(8, 6, *cells).to(dtype).requires_grad_()
    part.check(6, None)
    with nobody_waits(z.device):
        made = part(z)
    assert made.shape == z.shape and made.dtype == dtype and made.isfinite().all() and not torch.equal(made, z)
    made.float().sum().backward()
    assert z.grad is not None and z.grad.isfinite().all() and z.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in part.parameters())
    assert torch.equal(part.eval()(z), z)


def test_gaussian_noise() -> None:
    """One deviation for each image, uniform in (0, tau): mean tau / 2, variance tau^2 / 12."""
    part = build(dict(type='GaussianNoise', tau=0.8))
    deviations = part(torch.zeros(2000, 4, 16, 16)).flatten(1).std(1)
    torch.testing.assert_close(deviations.mean(), torch.tensor(0.4), rtol=0, atol=0.02)
    torch.testing.assert_close(deviations.std(), torch.tensor(0.8 / 12**0.5), rtol=0, atol=0.01)
    assert 0 < deviations.min() < 0.02 < 0.78 < deviations.max() < 0.85


def test_gaussian_mix() -> None:
    """(1 - g) 2 + g 3 e: the mean of an image gives its g, and its deviation is 3 g."""
    part = build(dict(type='GaussianMix', gamma=0.5, deviation=3.0))
    made = part(torch.full((500, 4, 32, 32), 2.0)).flatten(1)
    share = 1 - made.mean(1) / 2
    torch.testing.assert_close(made.std(1) / 3, share, rtol=0, atol=0.04)
    torch.testing.assert_close(share.mean(), torch.tensor(0.25), rtol=0, atol=0.03)
    assert share.max() < 0.54 and share.min() > -0.04


def test_bounded_noise_around_latents() -> None:
    noise = build(dict(type='BoundedNoise', level=0.5))(torch.zeros(64, 4, 16, 16))
    assert noise.abs().max() <= 0.25
    torch.testing.assert_close(noise.std(), torch.tensor(0.5 / 12**0.5), rtol=0.01, atol=0)
    half = build(dict(type='BoundedNoise', level=0.5, share=0.25))(torch.zeros(4000, 1, 1, 1)) != 0
    torch.testing.assert_close(half.float().mean(), torch.tensor(0.25), rtol=0, atol=0.03)


@pytest.mark.parametrize('bound', ['inner', 'symmetric'])
def test_bounded_noise_in_place_of_rounding(bound: Any) -> None:
    """The noise is that of rounding: uniform, one level wide, and the encoder gets the gradient of the bounded features."""
    quantizer, part = FiniteScalarQuantizer([5, 4, 7], bound), build(dict(type='BoundedNoise'))
    part.check(3, quantizer)
    features = torch.randn(16, 3, 20, 20).requires_grad_()
    quantized = quantizer(features.movedim(1, -1))
    made = part(quantized.z.movedim(-1, 1), Coding(features, quantized.tokens, quantizer))
    before, width = quantizer.unrounded(features.movedim(1, -1))
    assert ((quantized.z - before).abs() <= width / 2 + 2e-3).all()  # the range is bounded with a margin of 1e-3
    noise = (made.movedim(1, -1) - before) / width
    assert noise.abs().max() <= 0.5 + 1e-5
    torch.testing.assert_close(noise.std(), torch.tensor(12**-0.5), rtol=0.01, atol=0)
    wanted, found = (torch.autograd.grad(value.sum(), features, retain_graph=True)[0] for value in (before, made))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('learned', [False, True])
def test_masked_cells(learned: bool) -> None:
    part = build(dict(type='TokenMasking', low=0.3, high=0.3, learned=learned, channels=5))
    if learned:
        torch.nn.init.constant_(part.vector, 7.0)
    made = part(torch.ones(50, 5, 4, 5))
    masked = (made == (7 if learned else 0)).all(1)
    assert (masked | (made == 1).all(1)).all()
    assert masked.sum((1, 2)).tolist() == [6] * 50  # 0.3 of 20 cells
    assert masked.flatten(1).float().mean(0).min() > 0.05  # any cell
    if learned:
        made.sum().backward()
        assert part.vector.grad.tolist() == [300.0] * 5
    counts = (
        (build(dict(type='TokenMasking', low=-0.5, high=0.5, learned=False))(torch.ones(4000, 1, 100)) == 0).sum(2).float()
    )
    torch.testing.assert_close((counts == 0).float().mean(), torch.tensor(0.505), rtol=0, atol=0.03)  # below half a cell
    assert counts.max() == 50


def test_trailing_channels() -> None:
    made = build(dict(type='ChannelDrop', least=2, step=3))(torch.ones(3000, 8, 2, 2))
    kept = made.sum(1)[:, 0, 0]
    assert torch.equal(made, (torch.arange(8) < kept[:, None]).float()[:, :, None, None].expand_as(made))
    shares = [float((kept == count).float().mean()) for count in (2, 5, 8)]
    torch.testing.assert_close(torch.tensor(shares), torch.full((3,), 1 / 3), rtol=0, atol=0.03)


@pytest.mark.parametrize(('among', 'counts'), [('all', range(2, 13)), ('powers', (2, 4, 8, 12))])
def test_trailing_tokens(among: str, counts: Any) -> None:
    made = build(dict(type='TokenDrop', least=2, among=among, learned=False))(torch.ones(4000, 1, 3, 4)).flatten(1)
    kept = made.sum(1)
    assert torch.equal(made, (torch.arange(12) < kept[:, None]).float())
    shares = [float((kept == count).float().mean()) for count in counts]
    torch.testing.assert_close(torch.tensor(shares), torch.full((len(shares),), 1 / len(shares)), rtol=0, atol=0.03)


def coded(quantizer: Any, count: int = 40) -> tuple[Tensor, Coding]:
    features = torch.randn(count, 4, 3, 5)
    quantized = quantizer(features.movedim(1, -1))
    z = quantized.z.detach().movedim(-1, 1).requires_grad_()
    return z, Coding(features, quantized.tokens, quantizer)


@pytest.mark.parametrize('nearest', [None, 3])
def test_swapped_tokens(nearest: int | None) -> None:
    """A fifth of the images, 6 of 15 tokens, other codes, among the nearest ones; gradients pass straight through."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(16, 4).eval()
    torch.nn.init.normal_(quantizer.codebook.weight)
    part = build(dict(type='TokenSwap', share=0.4, images=0.2, nearest=nearest))
    part.check(4, quantizer)
    z, coding = coded(quantizer)
    with nobody_waits(z.device):
        made = part(z, coding)
    swapped = (made != z).any(1).flatten(1)
    assert swapped.sum(1).sort(descending=True).values.tolist() == [6] * 8 + [0] * 32
    table = quantizer.lookup(torch.arange(16))
    now = torch.cdist(made.movedim(1, -1).reshape(-1, 4), table)
    assert now.min(1).values.max() < 5e-3
    order = torch.cdist(table, table).argsort(1)  # the code itself is first
    rank = (order[coding.tokens.flatten()] == now.argmin(1)[:, None]).int().argmax(1).view(40, 15)  # type: ignore[union-attr]
    assert (rank[~swapped] == 0).all() and rank[swapped].min() >= 1
    assert {*rank[swapped].tolist()} == {1, 2, 3} if nearest else rank[swapped].max() > 8
    made.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))  # type: ignore[arg-type]
    part.share = torch.tensor(0.0)  # as a schedule sets it
    assert torch.equal(part(z, coding), z)


def test_few_images_are_swapped_with_the_asked_share() -> None:
    quantizer, part = VectorQuantizer(16, 4).eval(), build(dict(type='TokenSwap', share=1.0, images=0.1, nearest=None))
    z, coding = coded(quantizer, 4)
    found = torch.stack([(part(z, coding) != z).flatten(1).any(1).float().mean() for _ in range(400)]).mean()
    torch.testing.assert_close(found, torch.tensor(0.1), rtol=0, atol=0.04)


@pytest.mark.parametrize(
    ('settings', 'quantizer', 'words'),
    [
        (dict(type='GaussianNoise', tau=-1.0), None, 'tau is -1.0'),
        (dict(type='GaussianMix', gamma=1.5), None, 'gamma is 1.5'),
        (dict(type='BoundedNoise', level=0.0), None, 'level is 0.0'),
        (dict(type='BoundedNoise'), None, 'no quantizer that rounds'),
        (dict(type='BoundedNoise'), VectorQuantizer(8, 4), 'no quantizer that rounds'),
        (dict(type='TokenMasking', low=0.5, high=0.4), None, 'low is 0.5 and high 0.4'),
        (dict(type='TokenMasking'), None, 'unknown length'),
        (dict(type='TokenMasking', channels=3), None, 'vector of 3 channels, and the latent has 4'),
        (dict(type='ChannelDrop', least=0), None, 'least is 0'),
        (dict(type='ChannelDrop', least=1, step=2), None, 'keeps 1 channels and 2 more at a time, and the latent has 4'),
        (dict(type='TokenDrop', least=0), None, 'least is 0'),
        (dict(type='TokenSwap', share=2.0), None, 'share is 2.0'),
        (dict(type='TokenSwap'), None, 'the tokenizer is continuous'),
        (dict(type='TokenSwap', nearest=8), VectorQuantizer(8, 4), 'among 8 codes of 7 others'),
        (dict(type='TokenSwap'), GroupedQuantizer(VectorQuantizer(8, 2), 2), 'one token in each cell'),
        (dict(type='PerturbationChain', parts=[]), None, 'no parts'),
        (dict(type='PerturbationChain', parts=[dict(type='TokenSwap')]), None, 'the tokenizer is continuous'),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], quantizer: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        VQPerturbationRegistry.build(settings).check(4, quantizer)
    assert caught.value.hint
    with pytest.raises(ConfigError, match='at least 9 of 6 cells'):
        VQPerturbationRegistry.build(dict(type='TokenDrop', least=9, learned=False))(torch.zeros(1, 2, 6))
