"""The task that trains denoisers: its losses, its samples, its errors."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.losses.test_alignment import TEACHER
from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError, UserError
from vq.core.random import key_of
from vq.core.records import Batch, Latent, Prediction, to_float
from vq.denoisers.frozen import FrozenDenoiser
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Conditioned, Denoiser
from vq.interfaces.conditions import Asked
from vq.interfaces.denoisers import Denoise
from vq.io.checkpoints import model_state
from vq.losses.alignment import AlignmentLoss
from vq.losses.smooth_l1 import SmoothL1Loss
from vq.nn.latent_maps import SpaceToDepth
from vq.registries import VQConditionerRegistry, VQModelRegistry, VQTaskRegistry, VQTeacherRegistry
from vq.sampling.diffusion.euler import euler
from vq.sampling.guidance import constant
from vq.sampling.paths import BetaPath, FlowPath
from vq.sampling.times import LossSecondMomentTimes, UniformTimes
from vq.tasks.diffusion.drawing import History, Threshold, steps_of
from vq.tasks.diffusion.numbers import numbers_of
from vq.tasks.diffusion.task import DiffusionTask

CLASSES = 4


class Mixer(Denoiser):
    """A small network that uses all it is given."""

    kind = 'velocity'

    def __init__(self, channels: int, cells: tuple[int, ...], dim: int = 8) -> None:
        super().__init__()
        self.channels, self.cells, self.dim = channels, cells, dim
        self.time = nn.Linear(1, dim)
        self.into, self.out = nn.Conv2d(channels, dim, 3, padding=1), nn.Conv2d(dim, channels, 3, padding=1)

    def forward(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Prediction:
        known = self.time(t[:, None])
        if condition is not None and condition.vector is not None:
            known = known + condition.vector
        return Prediction(self.out(torch.relu(self.into(z) + known[..., None, None])), self.kind)


SHAPE = dict(width=8, multipliers=(1, 2), residual_blocks=1, attention_levels=(), refine=False, norm_groups=4)
QUANTIZER = dict(type='VectorQuantizer', codebook_size=32, embedding_dim=6)
CONNECTORS: dict[str, Any] = dict(post_encode=dict(type='ConvConnector'), pre_decode=dict(type='ConvConnector'))


def tokenizer(gives: str = 'codes', kind: str = 'VQGAN') -> FrozenTokenizer:
    torch.manual_seed(0)
    encoder = dict(type='ConvEncoder', out_channels=12, **SHAPE)
    config = dict(type=kind, encoder=encoder, decoder=dict(type='ConvDecoder', **SHAPE))
    if kind == 'VQGAN':
        config |= dict(quantizer=QUANTIZER, **CONNECTORS)
    else:
        config['decoder'] = dict(type='ConvDecoder', in_channels=6, **SHAPE)
    made = VQModelRegistry.build(config)
    made.statistics.put(torch.full((6,), 0.3), torch.full((6,), 2.0))
    return FrozenTokenizer(made, gives=gives, image_size=8)  # type: ignore[arg-type]


def task(frozen: FrozenTokenizer | None = None, guidance: float = 1.0, steps: int = 3, **settings: Any) -> DiffusionTask:
    torch.manual_seed(0)
    shape = (3, (8, 8)) if frozen is None else (6, (4, 4))
    conditioner = VQConditionerRegistry.build(dict(type='ClassConditioner', classes=CLASSES, dim=8, std=1.0))
    how: dict[str, Any] = dict(
        tokenizer=frozen,
        image_size=8 if frozen is None else None,
        denoiser=Mixer(*shape),
        conditioner=conditioner,
        path=FlowPath(),
        times=UniformTimes(),
        sampler=functools.partial(euler, steps=steps),
        guidance=functools.partial(constant, scale=guidance),
    )
    return DiffusionTask(**{**how, **settings}).eval()


def batch(count: int = 3) -> Batch:
    stream = torch.Generator().manual_seed(1)
    ids = [f'a/{number}' for number in range(count)]
    return Batch(
        image=torch.randint(0, 256, (count, 3, 8, 8), generator=stream, dtype=torch.uint8),
        id=ids,
        key=torch.tensor([key_of(name) for name in ids]),
        category=torch.arange(count) % CLASSES,
    )


def test_the_loss_is_the_squared_error_of_the_velocity() -> None:
    """On the straight path, by hand: z = (1 - t) x + t e, the target is e - x."""
    model, seen = task().train(), batch()
    torch.manual_seed(5)
    ((name, losses),) = model.training_step(seen, model.roots(), 1)
    torch.manual_seed(5)
    numbers = numbers_of(seen, 0, 1, (3, 8, 8))
    x, e, t = to_float(seen.image), numbers.noise, numbers.time[:, None, None, None]
    condition = Condition(seen.category, null=numbers.drop < 0.1)
    vector = model.conditioner(condition, 3)  # type: ignore[misc]
    estimate = model.denoiser((1 - t) * x + t * e, numbers.time, vector).value
    torch.testing.assert_close(losses.total, (estimate - (e - x)).square().mean())
    assert name == 'denoiser'
    model.update(torch.tensor(True))
    assert not model._seen


@pytest.mark.parametrize(('kind', 'gives'), [('VQGAN', 'codes'), ('VQGAN', 'features'), ('KLAutoencoder', 'codes')])
def test_latents_are_normalized_and_come_back(kind: str, gives: str) -> None:
    frozen, image = tokenizer(gives, kind), to_float(batch().image)
    codec, space = frozen.tokenizer, task(frozen).space
    latent = codec.encode(image)
    z = latent.mean if kind == 'KLAutoencoder' or gives == 'features' else codec.quantize(latent).z
    torch.testing.assert_close(space.encode(image), (z - 0.3) / 2)
    expected = codec.quantize(Latent(z)).z if gives == 'features' else z
    torch.testing.assert_close(space.latents(space.encode(image)), expected)
    assert torch.equal(space.encode(space.encode(image)), space.encode(image)), 'latents of a cache are taken as they are'


def test_latents_that_are_not_normalized_are_told(caplog: pytest.LogCaptureFixture) -> None:
    frozen, seen = tokenizer(), batch()
    for told in (False, True):
        if told:
            frozen.tokenizer.statistics.clear()
        model = task(frozen).train()
        with caplog.at_level('WARNING', 'vq'):
            next(model.training_step(seen, model.roots(), 1))
        assert ('no statistics of its latents' in caplog.text) == told


def test_the_posterior_is_sampled_where_asked() -> None:
    frozen, image = tokenizer(kind='KLAutoencoder'), to_float(batch().image)
    space, noise = task(frozen, sample_posterior=True).space, torch.randn(3, 6, 4, 4)
    latent = frozen.tokenizer.encode(image)
    assert latent.logvar is not None
    expected = (latent.mean + (latent.logvar / 2).exp() * noise - 0.3) / 2
    torch.testing.assert_close(space.encode(image, noise), expected)
    torch.testing.assert_close(space.encode(image), (latent.mean - 0.3) / 2)  # validation draws nothing
    with pytest.raises(ConfigError, match='no tokenizer with a Gaussian'):
        task(tokenizer(), sample_posterior=True)


def test_validation_is_the_same_whatever_the_batch() -> None:
    model, seen = task(tokenizer(), guidance=2.0), batch(4)
    whole = model.validation_step(seen)
    assert whole.pictures['generated'].shape == whole.reconstruction.shape == (4, 3, 8, 8)  # type: ignore[union-attr]
    assert [*whole.losses] == ['denoising', 't0-0.2', 't0.2-0.4', 't0.4-0.6', 't0.6-0.8', 't0.8-1']
    torch.testing.assert_close(whole.losses['denoising'], torch.stack([*whole.losses.values()][1:]).mean())
    alone = []
    for row in range(4):
        of_row = {name: value[row : row + 1] for name, value in vars(seen).items() if isinstance(value, torch.Tensor)}
        part = dataclasses.replace(seen, id=seen.id[row : row + 1], **of_row)
        alone.append(model.validation_step(part))
        torch.testing.assert_close(alone[row].pictures['generated'][0], whole.pictures['generated'][row])
    mean = torch.stack([found.losses['denoising'] for found in alone]).mean()
    torch.testing.assert_close(mean, whole.losses['denoising'])


def denoise(model: DiffusionTask) -> Denoise:
    guide = model.guide if isinstance(model.guide, FrozenDenoiser) else None
    return model.drawn_by.denoise(model._roots['denoiser'], model.path, guide)


def test_guidance_is_the_same_everywhere() -> None:
    model = task(tokenizer(), guidance=3.0)
    wanted = Wanted([0, 1], 7, Condition(torch.tensor([1, 2])))
    z, t = torch.randn(2, 6, 4, 4), torch.full((2,), 0.4)
    known = model.denoiser(z, t, model.conditioner(wanted.condition, 2)).value  # type: ignore[misc]
    unknown = model.denoiser(z, t, model.conditioner(None, 2)).value  # type: ignore[misc]
    torch.testing.assert_close(denoise(model)(z, 0.4, wanted.condition).value, unknown + 3 * (known - unknown))
    plain = model.drawing({'guidance': 1})
    assert torch.equal(denoise(plain)(z, 0.4, wanted.condition).value, known)
    assert not torch.equal(plain.draw(wanted).latents, model.draw(wanted).latents)  # type: ignore[arg-type]


def test_settings_of_drawing() -> None:
    model = task(steps=4)
    changed = model.drawing({'steps': 6, 'history': 3})
    assert [steps_of(each.drawn_by.sampler) for each in (changed, model)] == [6, 4]
    drawn = changed.draw(Wanted([0, 1], 7, model.condition(Asked([3]), [0, 1], torch.device('cpu'))))
    assert len(drawn.history) == 3 and torch.equal(drawn.history[-1], drawn.images())  # type: ignore[arg-type]
    config: dict[str, Any] = dict(conditioner={}, sampler=dict(type='DDIM', steps=9, eta=1.0), guidance=None)
    assert DiffusionTask.set_drawing(config, {'sampler': 'euler', 'guidance': 2}) == {
        'sampler': {'type': 'Euler', 'steps': 9},
        'guidance': {'type': 'ConstantGuidance', 'scale': 2.0},
    }
    for settings, message in (
        ({'temperature': 1}, "diffusion has no setting 'temperature'"),
        ({'sampler': 'oiler'}, "there is no sampler 'oiler'"),
        ({'steps': 0}, 'a sampler of 0 steps'),
    ):
        with pytest.raises(UserError, match=message):
            model.drawing(settings)
    with pytest.raises(UserError, match='learned no condition'):
        task(conditioner=None).drawing({'guidance': 2})
    with pytest.raises(UserError, match='learned no condition'):
        DiffusionTask.set_drawing(dict(sampler=dict(type='Euler')), {'guidance': 2})


def test_hidden_features_are_aligned_with_a_teacher() -> None:
    """REPA: the loss acts on the features of a layer, and trains what is before it, and its head."""
    loss = AlignmentLoss(VQTeacherRegistry.build(TEACHER, 'teacher'), 8, SmoothL1Loss(), 'denoiser.into', weight=0.5)
    model, seen = task(losses={'align': loss}).train(), batch()
    kept: dict[str, Tensor] = {}
    hook = model.denoiser.into.register_forward_hook(lambda *found: kept.update(hidden=found[2]))  # type: ignore[operator, union-attr]
    ((_, losses),) = model.training_step(seen, model.roots(), 1)
    hook.remove()
    expected = loss(loss.head(kept['hidden']), to_float(seen.image))
    torch.testing.assert_close(losses.values['align'], expected)
    torch.testing.assert_close(losses.total, losses.values['denoising'] + 0.5 * expected)
    losses.values['align'].backward()
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert reached == {f'{part}.{name}' for part in ('denoiser.into', 'losses.align.head') for name in ('weight', 'bias')}
    with pytest.raises(UserError, match='images are needed here'):
        next(model.training_step(dataclasses.replace(seen, image=None, latent=to_float(seen.image)), model.roots(), 1))


def test_the_law_of_times_learns_from_the_losses() -> None:
    law = LossSecondMomentTimes(steps=20, history=1)
    model, seen = task(path=BetaPath('cosine', 20), times=law).train(), batch(4)
    model.denoiser.kind = 'epsilon'
    for _ in range(2):  # micro-batches
        next(model.training_step(seen, model.roots(), 1))
    model.update(torch.tensor(False))
    assert not law.counts.any(), 'a step that is left out teaches nothing'
    next(model.training_step(seen, model.roots(), 1))
    model.update(torch.tensor(True))
    assert int(law.counts.sum()) == 4 and (law.losses[law.counts > 0] > 0).all()
    assert 'times.losses' in model_state(model)


def test_times_are_spread_over_the_batch() -> None:
    model, seen = task(stratified=True).train(), batch(8)
    next(model.training_step(seen, model.roots(), 1))
    ((times, _),) = model._seen
    assert (times * 8).floor().tolist() == [*range(8)]


def test_a_weaker_model_guides() -> None:
    """Autoguidance: weak + s (strong - weak), both with the condition; the weak one is in no checkpoint."""
    weak = FrozenDenoiser(Mixer(3, (8, 8)), VQConditionerRegistry.build(dict(type='ClassConditioner', classes=4, dim=8)))
    model = task(guide=weak, guidance=2.0)
    z, t, condition = torch.randn(2, 3, 8, 8), torch.full((2,), 0.4), Condition(torch.tensor([1, 2]))
    strong = model.denoiser(z, t, model.conditioner(condition, 2)).value  # type: ignore[misc]
    low = weak.denoiser(z, t, weak.conditioner(condition, 2)).value  # type: ignore[misc]
    torch.testing.assert_close(denoise(model)(z, 0.4, condition).value, low + 2 * (strong - low))
    kept = [name for name in model_state(model) if name.startswith('guide')]
    assert kept == ['guide.digest'] and not any(value.requires_grad for value in weak.parameters())
    with pytest.raises(ConfigError, match='guide is a Mixer'):
        task(guide=Mixer(3, (8, 8)))


def test_thresholds_hold_the_data() -> None:
    model = task(threshold=Threshold(0.25))
    images = model.draw(Wanted([0, 1], 3, Condition(torch.tensor([0, 1])))).images()
    assert images is not None and images.abs().max() <= 0.25 + 1e-6


def test_a_connector_moves_channels_into_space() -> None:
    frozen = tokenizer()
    model = task(frozen, connector=SpaceToDepth(2), denoiser=Mixer(24, (2, 2)))
    image = to_float(batch().image)
    z = model.space.encode(image)
    assert z.shape == (3, 24, 2, 2) and model.space.spec.shape == (24, 2, 2)
    expected = frozen.tokenizer.quantize(frozen.tokenizer.encode(image)).z
    torch.testing.assert_close(model.space.latents(z), expected)


def test_the_likelihood_is_bounded() -> None:
    """Bits of a network without a learned variance, on the published chain."""
    model = task(path=BetaPath(), bits_steps=4)
    model.denoiser.kind = 'epsilon'
    found = model.validation_step(batch())
    assert found.losses['bits'].isfinite() and found.losses['bits'] > 0


def test_a_learned_variance_is_trained_by_its_bound() -> None:
    model = VQTaskRegistry.build(config(learned_variance=True, kind='epsilon', timesteps=1000)).train()
    ((_, losses),) = model.training_step(batch(), model.roots(), 1)
    assert [*losses.values] == ['denoising', 'bound']
    torch.testing.assert_close(losses.total, losses.values['denoising'] + losses.values['bound'])
    losses.values['bound'].backward()
    gradient = model.denoiser.final.linear.bias.grad.view(-1, 6).abs().sum(0)  # of each patch: 3 values, then 3 variances
    assert not gradient[:3].any() and gradient[3:].all(), 'the bound trains the variance alone'


@pytest.mark.parametrize(
    ('steps', 'taken', 'kept'), [(10, 10, [2, 5, 8, 10]), (None, 10, [2, 5, 8, 10]), (10, 9, [2, 5, 8, 9]), (2, 3, [1, 2, 3])]
)
def test_history_is_evenly_spaced(steps: int | None, taken: int, kept: list[int]) -> None:
    history = History(4, steps)
    for step in range(1, taken + 1):
        history.add(torch.tensor(step))
    assert [int(state) for state in history.spaced()] == kept


def test_without_a_condition() -> None:
    model = task(conditioner=None).train()
    ((_, losses),) = model.training_step(batch(), model.roots(), 1)
    assert losses.total.isfinite() and model.asks is None and model.classes == 0
    assert model.eval().draw(Wanted([0], 1)).images().shape == (1, 3, 8, 8)  # type: ignore[union-attr]


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match='tokenizer is a Conv2d'):
        task(nn.Conv2d(1, 1, 1), image_size=8)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match='neither a tokenizer nor an image_size'):
        task(image_size=None)
    with pytest.raises(ConfigError, match='bins 0'):
        task(bins=0)
    with pytest.raises(ConfigError, match='learns 4 classes, and this dataset gives none'):
        task().validation_step(dataclasses.replace(batch(), category=None))
    with pytest.raises(ConfigError, match='gets 3 x 8 x 8 numbers a sample, and learns pixels of the shape 3 x 4 x 4'):
        task(image_size=4).validation_step(batch())


def config(image_size: Any = 8, **network: Any) -> dict[str, Any]:
    shape: dict[str, Any] = dict(type='DiT', dim=8, depth=1, heads=2, kind='velocity', timesteps=None)
    return dict(
        type='DiffusionTask',
        image_size=image_size,
        denoiser={**shape, **network},
        conditioner=dict(type='ClassConditioner', classes=CLASSES),
        path=dict(type='BetaPath' if 'learned_variance' in network else 'FlowPath'),
        times=dict(type='UniformTimes'),
        sampler=dict(type='Euler', steps=2),
        guidance=dict(type='ConstantGuidance'),
    )


def test_sizes_of_the_denoiser_follow_from_the_tokenizer() -> None:
    pixels = VQTaskRegistry.build(config(image_size=(8, 12)))
    assert pixels.denoiser.cells == (8, 12) and pixels.denoiser.channels == 3
    assert pixels.conditioner.table.weight.shape == (CLASSES + 1, 8)
    of_latents = VQTaskRegistry.build({**config(), 'tokenizer': tokenizer(), 'image_size': None})
    assert of_latents.denoiser.cells == (4, 4) and of_latents.denoiser.channels == 6
    with pytest.raises(ConfigError, match=r'denoiser.channels is 5 in the config'):
        VQTaskRegistry.build(config(channels=5))
