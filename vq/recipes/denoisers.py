"""Parts of diffusion: denoisers, paths, laws of time, samplers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.errors import ConfigError
from vq.core.recipe import Given, Part, recipe
from vq.recipes.parts import kind_of
from vq.recipes.strategy import chosen

# dim, depth and heads of DiT's published files (Peebles and Xie 2023)
SIZES = {'S': (384, 12, 6), 'B': (768, 12, 12), 'L': (1024, 24, 16), 'XL': (1152, 28, 16)}
TINY = dict(dim=32, depth=2, heads=2)
Kind = Literal['epsilon', 'x0', 'v', 'velocity', 'score']
MODERN = dict(positions='both', norm='rms', mlp='swiglu', qk_norm=True)


@recipe()
def path_part(
    given: Given,
    *,
    path: Annotated[
        Literal['flow', 'cosine', 'beta'],
        'flow: straight, (1 - t) x0 + t eps; cosine: the quarter of a circle; beta: a grid of times, by noise_schedule',
    ] = 'flow',
    shift: Annotated[float, 'paths flow, cosine: moves times towards noise; sqrt(numbers of a latent / 4096) in RAE'] = 1.0,
    noise_schedule: Annotated[Literal['linear', 'scaled_linear', 'cosine', 'sqrt'], 'path beta: its betas'] = 'linear',
    noise_start: Annotated[float | None, 'path beta: the first beta; None: as published'] = None,
    noise_end: Annotated[float | None, 'path beta: the last beta; None: as published'] = None,
    timesteps: Annotated[int, 'path beta: number of times'] = 1000,
) -> Part:
    """How data becomes noise."""
    if path == 'beta':
        return dict(type='BetaPath', schedule=noise_schedule, steps=timesteps, **chosen(start=noise_start, end=noise_end))
    return dict(type='CosinePath' if path == 'cosine' else 'FlowPath', shift=shift)


@recipe()
def times_part(
    given: Given,
    grid: int | None,
    *,
    stratified: Annotated[bool, 'the times of a step are spread evenly over the batch of all ranks'] = False,
    times: Annotated[
        Literal['uniform', 'logit_normal', 'loss_second_moment'],
        'law of the times of training; logit_normal: more in the middle; loss_second_moment: more where losses are large',
    ] = 'uniform',
    times_mean: Annotated[float, 'times logit_normal: mean of log(t / (1 - t)); above 0 is towards noise'] = 0.0,
    times_std: Annotated[float, 'times logit_normal: deviation of log(t / (1 - t))'] = 1.0,
) -> Part:
    """How training draws its times. ``grid``: the number of times of the path, if it has any."""
    normal = dict(type='LogitNormalTimes', mean=times_mean, std=times_std)
    by_loss = dict(type='LossSecondMomentTimes', steps=grid or 1000)
    law = dict(uniform=dict(type='UniformTimes'), logit_normal=normal, loss_second_moment=by_loss)[times]
    return dict(times=law, stratified=stratified)


@recipe()
def objective(
    given: Given,
    *,
    loss_space: Annotated[Kind | None, 'where the error is measured; None: in what the network estimates'] = None,
    min_snr: Annotated[float | None, 'gamma of min-SNR weights, usually 5; None: no weights'] = None,
    bound_weight: Annotated[float, 'of the variational bound, which trains a learned variance'] = 1.0,
) -> Part:
    """What the error of the denoiser is."""
    return dict(space=loss_space, min_snr=min_snr, bound_weight=bound_weight)


@recipe()
def denoiser_part(
    given: Given,
    grid: int | None,
    pixels: bool,
    *,
    denoiser: Annotated[Part | None, 'the whole denoiser, in place of the options that describe it'] = None,
    tiny_denoiser: Annotated[Part | None, 'overrides of that denoiser in the tiny form'] = None,
    form: Annotated[
        Literal['published', 'modern', 'wide_head'],
        'modern: rotary positions, RMS norms, SwiGLU, normalized queries and keys; wide_head: WideHeadDiT',
    ] = 'published',
    size: Annotated[Literal['S', 'B', 'L', 'XL'], 'preset of dim, depth and heads, each unless given'] = 'B',
    dim: Annotated[int | None, 'channels; None: from size'] = None,
    depth: Annotated[int | None, 'blocks; None: from size'] = None,
    heads: Annotated[int | None, 'attention heads; None: from size'] = None,
    patch: Annotated[int, 'cells a side that are one token'] = 2,
    bottleneck: Annotated[
        int | None, 'channels between a patch and its token, for large patches of pixels; None: none'
    ] = None,
    context: Annotated[int, 'forms but wide_head: tokens of the class, from a third of the blocks on (JiT: 32)'] = 0,
    head_dim: Annotated[int, 'form wide_head: channels of the head'] = 2048,
    head_depth: Annotated[int, 'form wide_head: blocks of the head'] = 2,
    prediction: Annotated[
        Kind | None, 'what the network estimates; None: epsilon on path beta, velocity on the others'
    ] = None,
    learned_variance: Annotated[bool, 'path beta: the network estimates the variance of the reverse process, too'] = False,
) -> tuple[Part, Part]:
    """A DiT, and what changes in its tiny form."""
    if denoiser is not None:
        return denoiser, tiny_denoiser or {}
    if learned_variance and grid is None:
        raise ConfigError('a learned variance is that of a chain of steps, and only path=beta has one', 'Set path=beta.')
    shape: dict[str, Any] = {**dict(zip(TINY, SIZES[size], strict=True)), **chosen(dim=dim, depth=depth, heads=heads)}
    if form == 'wide_head':
        if grid is not None or bottleneck is not None:
            raise ConfigError('a WideHeadDiT has no bottleneck and is told the time itself', 'Set path=flow or path=cosine.')
        head = dict(head_dim=head_dim, head_depth=head_depth)
        part = dict(type='WideHeadDiT', patch=patch, kind=prediction or 'velocity', **shape, **head)
        return part, tiny_denoiser or small(part, pixels)
    told = dict(kind=prediction or ('velocity' if grid is None else 'epsilon'), timesteps=grid)
    more = MODERN if form == 'modern' else {}
    own = dict(learned_variance=learned_variance, **chosen(bottleneck=bottleneck, context=context or None))
    part = dict(type='DiT', patch=patch, **told, **shape, **own, **more)
    return part, tiny_denoiser or small(part, pixels)


def small(part: Part, pixels: bool) -> Part:
    """What changes in the tiny form of a denoiser of this toolkit; nothing of others."""
    kind, sizes = kind_of(part), dict(TINY, patch=4 if pixels else 1)
    if kind == 'WideHeadDiT':
        return sizes | dict(head_dim=32, head_depth=1, head_heads=2)
    fewer = {name: less for name, less in dict(bottleneck=8, context=2).items() if part.get(name)}
    return sizes | fewer if kind == 'DiT' else {}


@recipe()
def drawing_part(
    given: Given,
    *,
    sampler: Annotated[str | Part, 'sampler by name: Euler, Heun, DDIM, ...; or with all its settings'] = 'Euler',
    steps: Annotated[int, 'steps of the sampler'] = 50,
    guidance: Annotated[float | Part, 'scale of guidance, or a schedule of it; 1: none'] = 1.0,
    guided_channels: Annotated[int | None, 'guide only the first channels, as the published DiT does; None: all'] = None,
    threshold: Annotated[
        float | None, 'largest absolute value of the estimated data, 1 for pixels; None: no threshold'
    ] = None,
    threshold_quantile: Annotated[float | None, 'with a threshold: dynamic, by this quantile, such as 0.995'] = None,
) -> Part:
    """How images are drawn."""
    function = dict(type=sampler, steps=steps) if isinstance(sampler, str) else dict(sampler)
    schedule = dict(type='ConstantGuidance', scale=float(guidance)) if isinstance(guidance, int | float) else dict(guidance)
    kept = None if threshold is None else dict(limit=threshold, quantile=threshold_quantile)
    return dict(sampler=function, guidance=schedule, guided_channels=guided_channels, threshold=kept)
