"""Energy diffusion: the denoiser is the gradient of an energy, and samplers descend it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.errors import ConfigError
from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.recipes.diffusion import diffusion, digits_diffusion

EPOCH = 5004  # steps of 256 images in ImageNet's 1,281,167
DIGITS_TOKENS = 16
# what equilibrium matching sets itself
OF_TIME = ('path', 'shift', 'prediction', 'times', 'times_mean', 'times_std', 'learned_variance', 'bits_steps')
OF_SAMPLER = ('sampler', 'steps')


@recipe()
def energy_part(
    given: Given,
    *,
    energy: Annotated[bool, 'the estimate is the gradient of an energy; False: what the network gives'] = True,
    reduction: Annotated[
        Literal['mean_then_head', 'head_then_mean', 'dot'],
        'what the head of the energy reads: the mean of the tokens, or each; dot: no head, z times the estimate',
    ] = 'mean_then_head',
    multiplier: Annotated[float, 'of the gradient'] = 1.0,
    step_size: Annotated[float, 'of the inner loop'] = 0.01,
    learn_step: Annotated[bool, 'the step size is learned, by a loss of the refinement'] = False,
    step_rate: Annotated[float, 'learn_step: how many times faster it learns than the weights'] = 1.0,
    refinement_weight: Annotated[float, 'learn_step: weight of that loss'] = 0.1,
    contrastive: Annotated[bool, 'a loss that gives data less energy than what the inner loop takes for data'] = False,
    contrastive_weight: Annotated[float, 'weight of the contrastive loss'] = 0.05,
) -> tuple[Part | None, dict[str, Part]]:
    """``Energy`` without its denoiser, None if there is none; and the losses on it."""
    if not energy:
        if learn_step or contrastive:
            raise ConfigError('learn_step and contrastive are of energies', 'Set energy=True, or leave them out.')
        return None, {}
    part = dict(type='Energy', reduction=reduction, multiplier=multiplier, step=step_size, learn_step=learn_step)
    losses: dict[str, Part] = {}
    if learn_step:
        part['step_rate'] = step_rate
        losses['refinement'] = dict(type='RefinementLoss', weight=refinement_weight)
    if contrastive:
        losses['contrastive'] = dict(type='ContrastiveEnergyLoss', weight=contrastive_weight)
    return part, losses


@recipe()
def inner_loop_part(
    given: Given,
    *,
    inner_loop: Annotated[bool, 'samplers descend the energy after each of their steps'] = False,
    inner_steps: Annotated[int, 'inner_loop: steps at little noise; up to 3 times as many at much noise'] = 5,
    inner_most: Annotated[int, 'inner_loop: the most steps'] = 10,
    accept: Annotated[
        Literal['lower', 'always', 'metropolis'], 'inner_loop: which steps are taken; metropolis: as MALA'
    ] = 'lower',
    inner_limit: Annotated[float | None, 'inner_loop: of |z| / alpha; None: no limit'] = 2.0,
    langevin: Annotated[bool, 'inner_loop: steps add noise'] = False,
    temperature: Annotated[float, 'langevin: of the noise'] = 1.0,
    curvature: Annotated[
        float | None, 'inner_loop: step size times the largest curvature, at most step_size; None: it is step_size'
    ] = None,
) -> Part | None:
    """``Refined`` without its sampler."""
    if not inner_loop:
        return None
    settings: dict[str, Any] = dict(count=inner_steps, most=inner_most, accept=accept, limit=inner_limit)
    noise = dict(langevin=True, temperature=temperature) if langevin else {}
    return dict(type='Refined', **settings, **noise, curvature=curvature)


@recipe(diffusion, energy_part, inner_loop_part)
def energy_diffusion(given: Given) -> Config:
    """Energy diffusion, or plain diffusion with its settings, on the latents of KL-16.

    x0 ~ N(mu, sigma^2) of the autoencoder, of unit variance;   z_t = alpha_t x0 + sigma_t eps, linear betas
    E(z_t, t, class) -> one number;   loss = |m dE/dz_t - eps|^2

    The weights of AdamW, the norm of gradients and the average of weights are those of MAR.
    """
    path = dict(path='beta', noise_schedule='linear', prediction='epsilon', timesteps=500)
    training = dict(betas=(0.9, 0.95), weight_decay=0.02, clip=3.0, ema=0.9999, sample_posterior=True)
    training |= dict(blr=9e-6, batch_size=256, iters=20 * EPOCH, schedule=dict(type='CosineSchedule', warmup=EPOCH, final=1.0))
    drawn = dict(sampler='Ancestral', steps=250)
    first = dict(it_config='configs/two_stage/klvae_f16_imagenet_ddp.py')
    config = diffusion(given, patch=1, watch=EPOCH, validate=EPOCH, **first, **path, **training, **drawn)
    energy, losses = energy_part(given)
    return with_energy(config, energy, losses, inner_loop_part(given))


def with_energy(config: Config, energy: Part | None, losses: dict[str, Part], inner: Part | None) -> Config:
    """``config`` of diffusion with an energy in place of its denoiser, and an inner loop after the steps of its sampler."""
    if energy is None:
        if inner is not None:
            raise ConfigError('inner_loop descends an energy, and there is none', 'Set energy=True, or inner_loop=False.')
        return config
    model, small = config['trainer']['model'], config['tiny']['trainer']['model']
    whole: dict[str, Any] = dict(denoiser=dict(energy, denoiser=model['denoiser'], _delete_=True), losses=dict(losses))
    tiny: dict[str, Any] = dict(denoiser=dict(denoiser=small['denoiser'], _delete_=True))
    for name, loss in model['losses'].items():  # of hidden features: the denoiser lies one level deeper
        whole['losses'][name] = dict(place=f'denoiser.{loss["place"]}')
        tiny.setdefault('losses', {})[name] = dict(place=f'denoiser.{small["losses"][name]["place"]}')
    if inner is not None:
        whole['sampler'] = dict(inner, sampler=model['sampler'], _delete_=True)
        tiny['sampler'] = dict(count=1, most=2, sampler=small.get('sampler', {}), _delete_=True)
    return merge(config, dict(trainer=dict(model=whole), tiny=dict(trainer=dict(model=tiny))))


@recipe(digits_diffusion, energy_part, inner_loop_part)
def digits_energy(given: Given) -> Config:
    """Energy diffusion of handwritten digits, on the latents of a digits tokenizer."""
    config = digits_diffusion(given, prediction='epsilon', iters=1400, save_every=700, pictures_every=700, evaluate=1400)
    part, losses = energy_part(given, multiplier=float(DIGITS_TOKENS))
    return with_energy(config, part, losses, inner_loop_part(given))


@recipe(digits_diffusion, hides=(*OF_TIME, *OF_SAMPLER))
def digits_equilibrium(
    given: Given,
    *,
    decay: Annotated[float, 'share of the way from noise on which the field is whole'] = 0.8,
    energy: Annotated[bool, 'the field is the gradient of an energy, z times what the network gives'] = False,
    momentum: Annotated[float, "of the descent, Nesterov's; 0: none"] = 0.35,
    step_size: Annotated[float, 'of the descent'] = 0.012,
    steps: Annotated[int, 'of the descent'] = 250,
) -> Config:
    """Equilibrium matching (Wang and Du 2025): a field without time, drawn from by gradient descent."""
    config = digits_diffusion(given, path='flow', prediction='velocity')
    network, small = config['trainer']['model']['denoiser'], config['tiny']['trainer']['model']['denoiser']
    inner = dict(type='Energy', denoiser=network, reduction='dot') if energy else network
    optimizer = dict(type='SGD', lr=step_size, momentum=momentum, nesterov=True) if momentum else None
    model = dict(
        denoiser=dict(type='Equilibrium', denoiser=inner, decay=decay, _delete_=True),
        times=dict(type='EquilibriumTimes', decay=decay, _delete_=True),
        sampler=dict(type='GradientDescent', steps=steps, size=step_size, optimizer=optimizer, _delete_=True),
    )
    little = dict(denoiser=dict(denoiser=dict(denoiser=small) if energy else small, _delete_=True))
    return merge(config, dict(trainer=dict(model=model), tiny=dict(trainer=dict(model=little))))
