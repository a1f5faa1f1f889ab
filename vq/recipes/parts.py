"""Parts shared by recipes of several families: callbacks, the convolutional tokenizer, their tiny forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from vq.core.recipe import Config, Given, Part, alias, merge, recipe
from vq.recipes.data import tiny_data
from vq.recipes.perturbed import disturbed
from vq.recipes.strategy import chosen, strategy

# quantizers that do not take codebook_size and embedding_dim
OWN_SIZES = ('FiniteScalarQuantizer', 'LookupFreeQuantizer', 'BinarySphericalQuantizer')
SIZED = ('VectorQuantizer', 'GumbelQuantizer', 'SimVectorQuantizer', 'IndexBackpropagationQuantizer')


def kind_of(part: Part) -> str:
    """The type of a part without its registry."""
    return str(part.get('type', '')).split('.')[-1]


# callbacks: the runner adds those for progress, git and preemption itself


@recipe()
def other_logs(
    given: Given,
    *,
    log_backend: Annotated[str | None, 'TensorBoard, Wandb, or a back end of mmengine; None: none'] = 'TensorBoard',
    wandb: Annotated[str | None, 'project of Weights & Biases to log to, too; None: none'] = None,
    watch: Annotated[int | None, 'steps between norms and histograms of parameters and gradients; None: none'] = None,
) -> Config:
    """Callbacks for other logs than the run's own, and for what they show. Nothing if they are the runner's default."""
    watched = {} if watch is None else dict(watch=dict(type='WatchCallback', interval=watch))
    kinds = None if log_backend == 'TensorBoard' else [] if log_backend is None else [dict(type=log_backend)]
    settings = chosen(backends=kinds, wandb=wandb)
    part = None if log_backend is None and wandb is None else dict(type='BackendsCallback', **settings)
    return dict(watched, backends=part) if settings else watched


WATCHING: dict[str, tuple[str, Part]] = {  # name: type, and settings in the tiny form
    'tokens': ('TokensCallback', dict(batch_size=60)),
    'ema': ('EMACallback', dict(decay=0.9)),
    'log': ('LogCallback', dict(interval=2)),
    'pictures': ('ImageGridCallback', dict(interval=4)),
    'generations': ('GenerationsCallback', dict(interval=8, each=1)),
    'alarm': ('CodebookAlarmCallback', dict(interval=4)),
    'gates': ('GateAlarmCallback', dict(interval=4)),
    'evaluate': ('EvalCallback', dict(interval=8, limit=20)),
    'validate': ('ValidateCallback', dict(interval=8, limit=8)),
    'checkpoint': ('CheckpointCallback', dict(interval=4)),
}


def watching(tiny: Mapping[str, Part] = {}, **settings: Any) -> tuple[Config, Config]:
    """Callbacks by name, and the callbacks that replace them in the tiny form.

    A number is the interval in steps (for ``ema`` the decay); a dict has all settings; None leaves the callback out.
    ``tiny``: overrides of the tiny settings in WATCHING.
    """
    whole, small = {}, {}
    for name, values in settings.items():
        if values is not None:
            kind, defaults = WATCHING[name]
            values = values if isinstance(values, Mapping) else {'decay' if name == 'ema' else 'interval': values}
            whole[name] = dict(type=kind, **values)
            small[name] = {'_delete_': True, 'type': kind, **defaults, **tiny.get(name, {})}
    return whole, small


def cooling(final: float = 1 / 16) -> Part:
    """A callback that anneals the temperature of a Gumbel quantizer from 1 to ``final`` along a cosine."""
    setting = 'tokenizer.quantizer.temperature'
    return dict(type='AnnealCallback', setting=setting, value=1.0, schedule=dict(type='CosineSchedule', final=final))


def of_types(**types: str) -> dict[str, Part]:
    """Parts by name, with the default settings of their types."""
    return {name: dict(type=kind) for name, kind in types.items()}


def by_name(parts: Any) -> Config:
    """Callbacks by name: a list gets names derived from the types, a dict is copied."""
    if isinstance(parts, Mapping):
        return dict(parts)
    found: dict[str, Any] = {}
    for part in parts:
        name = re.sub(r'(?<=[a-z])(?=[A-Z])', '_', kind_of(part).removesuffix('Callback')).lower()
        found[f'{name}_{len(found) + 1}' if name in found else name] = part
    return found


def step_settings(optimize: Any, name: str) -> Config:
    """Step settings of an optimizer. Older configs give a list of OptimizeCallbacks."""
    own = [optimize] if isinstance(optimize, Mapping) else [part for part in optimize if part.get('optimizer') in (None, name)]
    return {key: value for part in own for key, value in part.items() if key not in ('type', 'optimizer')}


def scaled_rate(given: Given, lr: float, blr: float | None) -> Config:
    """The learning rate of an optimizer: ``lr``, or ``blr`` times the images of a step / 256, whichever was set last."""
    return dict(lr=lr) if blr is None or given.last('lr', 'blr') == 'lr' else dict(lr=blr, scale_lr='linear', base_batch=256)


# the convolutional tokenizer


@recipe()
def code_sizes(
    given: Given,
    *,
    codebook_size: Annotated[int, 'codes', alias('num_embeddings')] = 8192,
    embedding_dim: Annotated[int, 'channels of a code'] = 256,
) -> Config:
    """Sizes that most quantizers take. With other quantizers both options stay unused."""
    return dict(codebook_size=codebook_size, embedding_dim=embedding_dim)


def sized(given: Given, quantizer: Part, others: bool = True, **sizes: int) -> Part:
    """A quantizer with codebook_size and embedding_dim, if its type takes them. Sizes in ``quantizer`` itself win.

    ``others``: also set both on types that are not in SIZED, such as a user's.
    """
    kind = kind_of(quantizer)
    if 'quantizer' in quantizer:
        return dict(quantizer, quantizer=sized(given, quantizer['quantizer'], others, **sizes))
    if kind in OWN_SIZES or (kind not in SIZED and not others) or {'codebook_size', 'embedding_dim'} <= set(quantizer):
        return quantizer
    return {**quantizer, **code_sizes(given, **sizes), **quantizer}


@recipe(code_sizes, disturbed)
def conv_tokenizer(
    given: Given,
    *,
    quantizer: Annotated[Part | None, 'quantizer; None: the plain VectorQuantizer'] = None,
    width: Annotated[int, 'channels of the first level'] = 128,
    multipliers: Annotated[tuple[int, ...], 'factors of width, one a level; five levels: 16 pixels a token'] = (1, 1, 2, 2, 4),
    refine: Annotated[bool, 'blocks with attention at the lowest resolution, on both sides'] = True,
) -> Part:
    """VQGAN's autoencoder."""
    shape = dict(width=width, multipliers=tuple(multipliers), attention_levels=(len(multipliers) - 1,), refine=refine)
    return dict(
        type='VQGAN',
        encoder=dict(type='ConvEncoder', residual_blocks=2, out_channels=256, **shape),
        post_encode=dict(type='ConvConnector'),
        quantizer=sized(given, quantizer or dict(type='VectorQuantizer')),
        pre_decode=dict(type='ConvConnector'),
        decoder=dict(type='ConvDecoder', residual_blocks=3, **shape),
        **disturbed(given),
    )


TINY_CODES, TINY_LEVELS = dict(codebook_size=64, embedding_dim=8), dict(width=8, residual_blocks=1)
TINY_CONV = dict(encoder=dict(TINY_LEVELS, out_channels=16), quantizer=TINY_CODES, decoder=TINY_LEVELS)
TINY_SCHEDULE = dict(_delete_=True, type='CosineSchedule', warmup=2)

# trainer and validator of tokenizers of photographs


@recipe(strategy, other_logs)
def photo_runner(
    given: Given,
    model: Part,
    optimizers: dict[str, Part],
    tiny: Config,
    *,
    iters: Annotated[int, 'optimizer steps'] = 260_000,
    optimize: Annotated[Any, 'step settings of the optimizers: clip, schedule, scale_lr, base_batch'] = {},
    callbacks: Annotated[Any, 'more callbacks, by name', alias('anneal')] = {},
    ema: Annotated[float | None, 'decay of the moving average (EMA) of weights; None: no EMA'] = None,
    evaluate: Annotated[int | None, 'steps between evaluations during training; None: no evaluation'] = 10_000,
    reference: Annotated[str | None, 'name of cached statistics for FID; None: the images themselves'] = None,
) -> Config:
    """Trainer and validator of tokenizers of photographs. ``tiny``: further overrides of the trainer in the tiny form."""
    evaluated = evaluate and dict(interval=evaluate, limit=10_000)
    # the last 12 are validated by the published command, --load-from iter_{15..26}0000
    saved = dict(interval=10_000, keep_last=12, keep_every=50_000, keep_state=2)
    whole, small = watching(ema=ema, log=50, pictures=1000, alarm=500, evaluate=evaluated, checkpoint=saved)
    pixels = of_types(l1='L1Metric', l2='L2Metric', mse='MSEMetric', psnr='PSNRMetric', ssim='SSIMMetric')
    network, figures = dict(type='FIDInception'), ('fid', 'sfid', 'inception_score')
    networks = dict(
        lpips=dict(type='LPIPSMetric', net='vgg'),
        features=dict(type='FeatureMetric', network=network, figures=figures, reference=reference),
    )
    codes = of_types(codebook='CodebookMetric', window='WindowedCodebookMetric')
    metrics = {**pixels, **of_types(ssim_uniform='UniformSSIMMetric'), **networks, **codes}
    stepped = {name: {**part, **step_settings(optimize, name)} for name, part in optimizers.items()}
    trainer = dict(
        type='Trainer',
        iters=iters,
        model=model,
        optimizers=stepped,
        callbacks={**by_name(callbacks), **whole, **other_logs(given)},
    )
    # the networks of these metrics take longer than the rest of a tiny run
    fast = dict(features=None, lpips=None, window=None)
    checked = dict(metrics=fast, callbacks=of_types(reconstructions='ReconstructionsCallback'))
    return dict(
        trainer=trainer,
        validator=dict(type='Validator', metrics=metrics, callbacks={}),
        tiny=merge(tiny_data(given), dict(trainer=dict(callbacks=small), validator=checked), dict(trainer=tiny)),
    )
