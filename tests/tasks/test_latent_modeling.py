"""MAR and the task that trains it: what is hidden, what is learned, what is drawn, its settings and its errors."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from scipy import stats

from tests.tasks.test_diffusion import batch, tokenizer
from tests.tasks.test_diffusion import task as diffusion_task
from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError, UserError
from vq.core.records import to_float, to_uint8
from vq.data.inputs import Intake
from vq.interfaces import TokenDrawing
from vq.registries import (
    VQConditionerRegistry,
    VQContinuousGeneratorRegistry,
    VQDiffusionSamplerRegistry,
    VQTaskRegistry,
    VQTokenHeadRegistry,
)
from vq.sampling.diffusion.ancestral import ancestral
from vq.sampling.diffusion.euler import euler
from vq.sampling.guidance import linear
from vq.sampling.keyed import KeyedStreams
from vq.tasks.latent_modeling.settings import adds_noise
from vq.tasks.latent_modeling.task import LatentModeling
from vq.tasks.loaded import LoadedGenerator

CLASSES = 4
MLP = dict(type='MLPDenoiser', width=16, depth=1, learned_variance=True)
HEAD: dict[str, Any] = dict(type='DiffusionHead', denoiser=MLP, path=dict(type='BetaPath', schedule='cosine'), repeats=2)
SHAPE = dict(type='MAR', dim=16, depth=1, heads=2, buffer=2, dropout=0.0)


def generator(head: dict[str, Any] = HEAD, **settings: Any) -> Any:
    torch.manual_seed(0)
    return VQContinuousGeneratorRegistry.build(dict(SHAPE, channels=6, cells=(4, 4), head=head, **settings), 'generator')


def task(head: dict[str, Any] = HEAD, **settings: Any) -> LatentModeling:
    made = generator(head)
    torch.manual_seed(1)
    for parameter in made.head.parameters():  # its last layers start at zero
        torch.nn.init.normal_(parameter, std=0.2)
    how: dict[str, Any] = dict(
        tokenizer=tokenizer('codes', 'KLAutoencoder'),
        generator=made,
        conditioner=VQConditionerRegistry.build(dict(type='ClassConditioner', classes=CLASSES, dim=16, std=1.0)),
        sampler=functools.partial(ancestral, steps=3),
        guidance=functools.partial(linear, scale=2.0),
        num_iter=3,
    )
    return LatentModeling(**{**how, **settings}).eval()


@pytest.mark.parametrize('uniform', [0.0, 0.2, 0.5, 0.999])
def test_the_share_of_hidden_tokens_is_a_truncated_normal_number(uniform: float) -> None:
    model = generator()
    law = stats.truncnorm((0.7 - 1) / 0.25, 0, loc=1.0, scale=0.25)
    assert model.hidden_count(uniform) == -(-16 * law.ppf(uniform) // 1)


def test_vectors_see_visible_tokens_alone() -> None:
    network, stream = generator().network.eval(), torch.Generator().manual_seed(0)
    x, vector = torch.randn(2, 16, 6, generator=stream), torch.randn(2, 16, generator=stream)
    visible = torch.tensor([[1, 5, 9], [0, 2, 15]])
    other = torch.randn(2, 16, 6, generator=stream)
    other = other.scatter(1, visible[..., None].expand(-1, -1, 6), x.gather(1, visible[..., None].expand(-1, -1, 6)))
    assert torch.equal(network(x, visible, vector), network(other, visible, vector))
    torch.testing.assert_close(network(x, visible.flip(1), vector), network(x, visible, vector))


def test_the_loss_is_that_of_hidden_tokens() -> None:
    """The head is given those that the encoder was not, each with its own vector."""
    model, given = generator(), []
    keys, latents = torch.tensor([3, 4]), torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    model.head.register_forward_pre_hook(lambda module, inputs: given.append(inputs))
    model.network.register_forward_pre_hook(lambda module, inputs: given.append(inputs))
    streams = KeyedStreams(keys, (1, 2), 0.1)
    model(latents, None, streams)
    (x, visible, _), (tokens, z, _) = given
    count = model.hidden_count(0.1)
    assert tokens.shape == (2, count, 6) and z.shape == (2, count, 16) and visible.shape == (2, 16 - count)
    whole = torch.cat([tokens, x.gather(1, visible[..., None].expand(-1, -1, 6))], 1)
    for row in range(2):
        assert {*map(tuple, whole[row].tolist())} == {*map(tuple, latents[row].flatten(1).T.tolist())}
    alone = KeyedStreams(keys[1:], (1, 2), 0.1)
    torch.testing.assert_close(alone.uniforms(16, of='order')[0], streams.uniforms(16, of='order')[1])


def test_patches_come_back() -> None:
    layout = generator(patch=2).layout
    latents = torch.arange(2 * 6 * 16.0).view(2, 6, 4, 4)
    tokens = layout.tokens(latents)
    assert tokens.shape == (2, 4, 24) and torch.equal(layout.latents(tokens), latents)
    assert tokens[0, 1].tolist() == [value for plane in latents[0] for value in plane[:2, 2:].flatten().tolist()]
    assert layout.kept(torch.tensor([[True] * 4] * 2 + [[True, True, False, True]] * 2)).tolist() == [True, True, True, False]
    with pytest.raises(ConfigError, match='do not divide into patches of 3'):
        generator(patch=3)


def test_a_training_step_has_the_same_numbers_in_any_batch() -> None:
    model, seen = task().train(), batch()
    ((name, losses),) = model.training_step(seen, model.roots(), 1)
    assert name == 'generator' and losses.values.keys() == {'denoising', 'bound'}
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in model.generator.parameters())
    streams = KeyedStreams(seen.key, (0, 1))
    last = KeyedStreams(seen.key[2:], (0, 1))
    assert torch.equal(streams.normals(2, 6, of='noise of the head')[2:], last.normals(2, 6, of='noise of the head'))


@pytest.mark.parametrize('scale', [1.0, 2.0])
def test_images_do_not_depend_on_their_batch(scale: float) -> None:
    model = task(guidance=functools.partial(linear, scale=scale))
    whole = model.draw(Wanted([5, 6, 7], 1, Condition(torch.tensor([0, 1, 2]))))
    alone = model.draw(Wanted([6], 1, Condition(torch.tensor([1]))))
    torch.testing.assert_close(whole.latents[1:2], alone.latents, rtol=1e-4, atol=1e-4)  # type: ignore[index]
    assert whole.images().shape == (3, 3, 8, 8)  # type: ignore[union-attr]
    other = model.draw(Wanted([6], 2, Condition(torch.tensor([1]))))
    assert not torch.allclose(other.latents, alone.latents)  # type: ignore[arg-type]


def test_guidance_reaches_its_scale_as_tokens_come() -> None:
    """Of 16 tokens, 13, 8 and 1 are hidden after the iterations (the last counts 1): 1 + (s - 1) (16 - hidden) / 16."""
    asked: list[tuple[float, float]] = []

    def guidance(step: float, steps: float) -> float:
        asked.append((step, steps))
        return linear(step, steps, scale=3.0)

    task(guidance=guidance).draw(Wanted([0], 1, Condition(torch.tensor([0]))))
    assert asked == [(3, 17), (8, 17), (15, 17)]
    assert [linear(*one, scale=3.0) for one in asked] == [1 + 2 * fixed / 16 for fixed in (3, 8, 15)]


def test_given_cells_stay() -> None:
    model = task()
    latents = model.space.encode(to_float(batch().image))
    keep = torch.tensor([[True] * 4] * 2 + [[False] * 4] * 2)
    wanted = Wanted([0, 1, 2], 1, Condition(torch.tensor([0, 1, 2])), latents, keep)
    drawn = model.draw(wanted).latents
    assert drawn is not None
    torch.testing.assert_close(drawn[:, :, :2], model.space.latents(latents)[:, :, :2])
    assert not torch.isclose(drawn[:, :, 2:], model.space.latents(latents)[:, :, 2:]).any()


def test_a_loaded_model_completes_images() -> None:
    model, images = task(), batch().image
    loaded = LoadedGenerator(model, torch.device('cpu'), 'here', Intake(tuple(images.shape[2:]), batch_size=2))
    found = loaded.complete(images, classes=[0, 1, 2], seed=1)
    latents = model.space.encode(to_float(images))
    keep = torch.tensor([[True] * 4] * 2 + [[False] * 4] * 2)
    wanted = Wanted([0, 1, 2], 1, Condition(torch.tensor([0, 1, 2])), latents, keep)
    assert (found.int() - to_uint8(model.draw(wanted).images()).int()).abs().max() <= 1  # the batches differ
    whole = loaded.complete(images, classes=[0, 1, 2], keep=torch.ones(4, 4, dtype=torch.bool))
    decoded = to_uint8(model.space.decode(model.space.latents(latents)))
    assert (whole.int() - decoded.int()).abs().max() <= 1 and not torch.equal(whole, found)
    other = LoadedGenerator(diffusion_task(), torch.device('cpu'), 'here', Intake(tuple(images.shape[2:])))
    with pytest.raises(UserError, match='draws no tokens'):
        other.complete(images)


def test_validation_draws_and_measures() -> None:
    model = task()
    found, again = model.validation_step(batch()), model.validation_step(batch())
    assert found.losses.keys() == {'denoising', 'bound'} and found.pictures.keys() == {'generated', 'half_generated'}
    assert torch.equal(found.losses['denoising'], again.losses['denoising'])


def test_any_denoiser_is_a_head() -> None:
    dit = dict(type='DiT', dim=8, depth=1, heads=2, patch=1, kind='velocity', timesteps=None)
    head = dict(type='DiffusionHead', denoiser=dit, path=dict(type='FlowPath'))
    model = task(head, sampler=functools.partial(euler, steps=2)).train()
    assert model.generator.head.project.out_features == 8
    ((_, losses),) = model.training_step(batch(), model.roots(), 1)
    assert losses.values.keys() == {'denoising'} and losses.total.isfinite()
    drawn = model.eval().draw(Wanted([0], 1, Condition(torch.tensor([0]))))
    assert drawn.latents.isfinite().all()  # type: ignore[union-attr]


CONFIG: dict[str, Any] = dict(
    generator=dict(type='MAR', head=HEAD),
    conditioner=dict(type='ClassConditioner'),
    sampler=dict(type='Ancestral', steps=100),
    guidance=dict(type='LinearGuidance', scale=2.0),
    num_iter=64,
)


def test_settings_of_a_command() -> None:
    config = dict(CONFIG)
    given = {'guidance': 3, 'cfg_schedule': 'constant', 'num_iter': 8, 'temperature': 0.9, 'steps': 7, 'sampler': 'sde'}
    assert LatentModeling.set_drawing(config, given) == {
        'sampler': {'type': 'SDE', 'steps': 7},
        'guidance': {'type': 'ConstantGuidance', 'scale': 3.0},
        'num_iter': 8,
        'temperature': 0.9,
    }
    assert config['num_iter'] == 8 and CONFIG['num_iter'] == 64
    schedule = LatentModeling.set_drawing(dict(CONFIG), {'cfg_schedule': 'cosine'})['guidance']
    assert schedule == {'type': 'CosineGuidance', 'scale': 2.0}, 'the scale stays'
    changed = task().drawing(given)
    assert changed.drawn_by.num_iter == 8 and changed.drawn_by.temperature == 0.9
    assert changed.drawn_by.guidance(0, 9) == 3.0 and changed.drawn_by.sampler.keywords == {'steps': 7}  # type: ignore
    assert task().drawn_by.num_iter == 3


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'top_k': 3}, "does not use 'top_k'"),
        ({'history': 3}, "does not use 'history'"),
        ({'num_iter': 0}, 'num_iter is 0'),
        ({'cfg_schedule': 'step'}, "cfg_schedule is 'step'"),
        ({'temperature': -1}, 'temperature is -1'),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LatentModeling.set_drawing(dict(CONFIG), settings)
    with pytest.raises(UserError, match=message):
        task().drawing(settings)


@pytest.mark.parametrize('name', ['num_iter', 'cfg_schedule', 'temperature'])
def test_diffusion_refuses_what_it_ignores(name: str) -> None:
    with pytest.raises(UserError, match=f"no setting '{name}'"):
        diffusion_task().drawing({name: 1})


def test_guidance_needs_a_condition() -> None:
    with pytest.raises(UserError, match='no condition to be guided by'):
        LatentModeling.set_drawing(dict(CONFIG, conditioner=None), {'guidance': 2})


def test_temperature_needs_noise() -> None:
    known = {name: adds_noise(VQDiffusionSamplerRegistry.build(dict(type=name, steps=3))) for name in ('Ancestral', 'SDE')}
    known |= {name: adds_noise(VQDiffusionSamplerRegistry.build(dict(type=name, steps=3))) for name in ('DDIM', 'Euler')}
    assert known == {'Ancestral': True, 'SDE': True, 'DDIM': False, 'Euler': False}
    assert adds_noise(VQDiffusionSamplerRegistry.build(dict(type='DDIM', steps=3, eta=0.5)))
    with pytest.raises(UserError, match='sampler DDIM adds no noise'):
        task().drawing({'sampler': 'ddim', 'temperature': 0.9})


def test_temperature_scales_the_noise_of_the_steps() -> None:
    head = task().generator.head
    z, stream = torch.zeros(1, 2, 16), torch.Generator().manual_seed(0)
    noise = {name: torch.randn(1, 2, 6, generator=stream) for name in ('start', 'step 0', 'step 1', 'step 2')}
    sampler = functools.partial(ancestral, steps=3)
    cold, scaled = (
        head.draw(z, None, 1.0, TokenDrawing(sampler, linear, temperature), given.__getitem__)
        for temperature, given in ((0.5, noise), (1.0, {k: v if k == 'start' else 0.5 * v for k, v in noise.items()}))
    )
    torch.testing.assert_close(cold, scaled)


def test_errors() -> None:
    with pytest.raises(ConfigError, match='needs a sampler'):
        task(sampler=None)
    law = dict(type='LossSecondMomentTimes')
    with pytest.raises(ConfigError, match='follows the losses'):
        VQTokenHeadRegistry.build(dict(HEAD, channels=6, dim=16, times=law), 'head')
    with pytest.raises(ConfigError, match='mask_min is 1'):
        generator(mask_min=1.0)
    model = VQTokenHeadRegistry.build(dict(HEAD, channels=5, dim=16), 'head')
    with pytest.raises(ConfigError, match='the head makes 5 numbers'):
        VQContinuousGeneratorRegistry.parse('MAR')[1](6, (4, 4), 16, 1, 2, model)
    assert VQTaskRegistry.parse('LatentModeling')[1] is LatentModeling


ENERGY: dict[str, Any] = dict(type='EnergyTokenHead', width=16, depth=1)


def test_the_energy_head_learns_hidden_tokens_and_has_settings_of_its_own() -> None:
    """Second derivatives reach all parameters; targets of visible tokens have no influence on the loss."""
    model = task(ENERGY, sampler=None).train()
    ((_, losses),) = model.training_step(batch(), model.roots(), 1)
    losses.total.backward()
    assert losses.values.keys() == {'distance'}
    idle = {name for name, value in model.generator.named_parameters() if value.grad is None}
    assert idle == {'head.final.linear.bias'}, 'a constant has no slope'
    assert not model.generator.head.final.linear.bias.requires_grad
    drawn = model.eval().draw(Wanted([0, 1], 1, Condition(torch.tensor([0, 1]))))
    assert drawn.latents.isfinite().all() and not drawn.latents.requires_grad  # type: ignore[union-attr]
    with pytest.raises(UserError, match="does not use 'steps'"):
        model.drawing({'steps': 3})


def test_energy_falls_along_the_descent() -> None:
    head = task(ENERGY, sampler=None).generator.head.eval()
    stream = torch.Generator().manual_seed(0)
    x, z = torch.randn(3, 5, 6, generator=stream), torch.randn(3, 5, 16, generator=stream)
    energies = [head.energy(x, z)]
    for _ in range(3):
        gradient, x = head.slope(x, z)
        x = x - 0.01 * gradient
        energies.append(head.energy(x, z))
    assert all((after < before).all() for before, after in itertools.pairwise(energies))
