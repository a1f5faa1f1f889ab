"""Token generators: autoregressive and masked.

image -> frozen tokenizer -> tokens, once;    class, tokens -> generator -> cross entropy
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.recipes.classification import IMAGES, LOADING, digits_features
from vq.recipes.data import data, tiny_data
from vq.recipes.frozen import frozen_tokenizer
from vq.recipes.masked import TINY, mage, masked
from vq.recipes.parts import TINY_SCHEDULE, of_types, other_logs, watching
from vq.recipes.strategy import chosen, strategy

# LlamaGen's dim, depth and heads: B, L and XL from its published files, XXL and 3B from its paper
SIZES = {'B': (768, 12, 12), 'L': (1024, 24, 16), 'XL': (1280, 36, 20), 'XXL': (1536, 48, 24), '3B': (3200, 24, 32)}
INCEPTION = dict(type='FIDInception')
PICTURES = ('generated', 'half_generated', 'teacher_forced')

# networks; the tokens determine their vocabulary size and length. ``shape``: dim, depth, heads


@recipe()
def llama(
    given: Given,
    shape: dict[str, int],
    dropout: float,
    *,
    rope: Annotated[Literal['grid', 'line'], "rotary positions: 2-D on the grid, or 1-D as in Hugging Face's Llama"] = 'grid',
    kv_heads: Annotated[int | None, 'heads of keys and values; None: equal to heads'] = None,
    ffn_dim: Annotated[int | None, 'hidden channels of feed-forward layers; None: from dim'] = None,
) -> Part:
    """A LlamaNetwork."""
    own = chosen(kv_heads=kv_heads, ffn_dim=ffn_dim)
    return dict(type='LlamaNetwork', rope=rope, token_dropout=dropout, dropout=dropout, **own, **shape)


@recipe()
def hugging_face(
    given: Given,
    kind: str,
    shape: dict[str, int],
    *,
    settings: Annotated[dict[str, Any], "further settings of the package's config"] = {},
    network_weights: Annotated[str | None, 'folder of pretrained weights; None: random'] = None,
) -> Part:
    """A network of the package transformers. ``shape`` is translated to the package's names of settings."""
    dim, depth, heads = shape['dim'], shape['depth'], shape['heads']
    if kind == 'hf_llama':
        own = dict(hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * dim)
    else:
        own = dict(n_embd=dim, n_layer=depth, n_head=heads)
    kind = 'HuggingFaceLlama' if kind == 'hf_llama' else 'HuggingFaceGPT2'
    if shape == TINY:
        return dict(type=kind, settings=own)
    return dict(type=kind, settings={**own, **settings}, weights=network_weights)


@recipe(llama, hugging_face)
def autoregressive(
    given: Given,
    shape: dict[str, int],
    dropout: float,
    *,
    network: Annotated[Literal['llama', 'gpt2', 'hf_llama', 'hf_gpt2'], 'network that predicts the next token'] = 'llama',
    vocabulary: Annotated[Literal['prefix', 'joint'], 'classes: embedded prefix, or ids of a joint vocabulary'] = 'prefix',
    predicts: Annotated[Literal['segment', 'vocabulary'], 'logits of the loss: ids of the segment, or all ids'] = 'segment',
    positions: Annotated[int | None, 'length of position tables; None: number of tokens'] = None,
) -> Part:
    """A generator that draws tokens one after the other."""
    if network == 'llama':
        part = llama(given, shape, dropout)
    elif network == 'gpt2':
        part = dict(type='GPT2Network', dropout=dropout, **shape)
    else:
        part = hugging_face(given, network, shape)
    return dict(type='Autoregressive', network=part | chosen(length=positions), vocabulary=vocabulary, predicts=predicts)


@recipe(autoregressive, masked, mage)
def generator_part(
    given: Given,
    tiny: bool,
    *,
    method: Annotated[Literal['autoregressive', 'masked', 'mage'], 'how tokens are drawn'] = 'autoregressive',
    size: Annotated[Literal['B', 'L', 'XL', 'XXL', '3B'], 'preset of dim, depth and heads, each unless given'] = 'L',
    dim: Annotated[int | None, 'channels; None: from size'] = None,
    depth: Annotated[int | None, 'layers; None: from size'] = None,
    heads: Annotated[int | None, 'attention heads; None: from size'] = None,
    num_classes: Annotated[int, 'number of classes; 0: unconditional'] = 1000,
    label_drop: Annotated[float, 'share of labels dropped in training; guidance needs it'] = 0.1,
    dropout: Annotated[float, 'dropout probability, of token embeddings and in layers'] = 0.1,
) -> Part:
    """The generator, or its tiny form."""
    sized = dict(zip(TINY, SIZES[size], strict=True))
    shape = TINY if tiny else {**sized, **chosen(dim=dim, depth=depth, heads=heads)}
    build = dict(autoregressive=autoregressive, masked=masked, mage=mage)[method]
    return dict(build(given, shape, dropout), classes=num_classes, label_drop=label_drop)


@recipe(frozen_tokenizer, generator_part, data, strategy, other_logs)
def token_generator(
    given: Given,
    *,
    generator: Annotated[Part | None, 'the whole generator, in place of the options that describe it'] = None,
    tiny_generator: Annotated[Part | None, 'overrides of that generator in the tiny form'] = None,
    on_the_fly: Annotated[bool, 'tokenize augmented images in every step, instead of writing tokens once'] = False,
    tokens: Annotated[str | None, 'folder for tokens that runs share; None: in the run folder'] = None,
    variants: Annotated[tuple[str, ...], 'variants of each image to tokenize: center, flip, ...'] = ('center', 'flip'),
    sampler: Annotated[Part, 'how a token is sampled from logits'] = dict(type='Multinomial'),
    guidance: Annotated[Part | None, 'classifier-free guidance in sampling'] = dict(type='ConstantGuidance', scale=1.75),
    draws: Annotated[tuple[str, ...], 'kinds of images that validation draws'] = PICTURES,
    label_smoothing: Annotated[float, 'label smoothing of the cross entropy'] = 0.0,
    iters: Annotated[int, 'optimizer steps'] = 250_000,
    lr: Annotated[float, 'learning rate of AdamW'] = 1e-4,
    betas: Annotated[tuple[float, float], 'betas of AdamW'] = (0.9, 0.95),
    eps: Annotated[float, 'eps of AdamW'] = 1e-8,
    weight_decay: Annotated[float, 'weight decay of AdamW, for matrices only'] = 0.05,
    schedule: Annotated[Part, 'learning rate schedule'] = dict(type='CosineSchedule'),
    ema: Annotated[float | None, 'decay of the moving average (EMA) of weights; None: no EMA'] = None,
    evaluate: Annotated[int | None, 'steps between evaluations during training; None: no evaluation'] = 25_000,
    validate: Annotated[int | None, 'steps between validations by the losses alone; None: none'] = None,
    evaluate_limit: Annotated[int | None, 'images in such an evaluation; None: all'] = 10_000,
    pictures_every: Annotated[int | tuple[int, ...], 'steps between pictures of generated images, or the steps'] = 5000,
    save_every: Annotated[int, 'steps between checkpoints'] = 10_000,
    features: Annotated[Part | None, 'feature network of FID and related figures; None: no such figures'] = INCEPTION,
    figures: Annotated[tuple[str, ...], 'figures computed on generated images'] = ('fid', 'inception_score'),
    reference: Annotated[str | None, 'name of cached statistics for FID; None: the images themselves'] = None,
) -> Config:
    """Train a generator on tokens of a frozen tokenizer. The tokens are written once, before the first step."""
    usual = dict(batch_size=256, val_batch_size=64, batch_size_in_total=True, num_workers=4)
    images = data(given, dataset='imagenet', image_size=256, augmentation='auto_weak' if on_the_fly else 'none', **usual)
    frozen, digits = frozen_tokenizer(given), dict(type='DigitsDataset', split='train', image_size=32)
    written = None
    if not on_the_fly:
        images['trainer']['dataset'] = dict(type='TokenDataset', source=images['trainer']['dataset'], folder=tokens)
        digits = dict(type='TokenDataset', source=digits)
        written = dict(batch_size=64, num_workers=images['trainer']['dataloader']['num_workers'], variants=variants)
    measured: Part = dict(type='FeatureMetric', network=features, reference=reference)
    metrics = of_types(tokens='TokenMetric', codebook='CodebookMetric')
    if features is not None:
        metrics['reconstructed'] = dict(measured, prefix='reconstruct_')
        metrics['generated'] = dict(measured, figures=figures, images='generated', prefix='generate_')
    whole, little = generator or generator_part(given, False), generator or generator_part(given, True)
    small = dict(little, _delete_=True) if tiny_generator is None else tiny_generator
    drawing = dict(sampler=sampler, guidance=guidance, draws=draws)
    model = dict(type='SequenceModeling', generator=whole, tokenizer=frozen.part, label_smoothing=label_smoothing, **drawing)
    adam = dict(type='AdamW', lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decay='matrices')
    optimizers = dict(generator=dict(adam, clip=1.0, schedule=schedule))
    evaluated = evaluate and dict(interval=evaluate, limit=evaluate_limit)
    looks: dict[str, Any] = dict(log=50, generations=pictures_every, evaluate=evaluated, validate=validate)
    saved = dict(interval=save_every, keep_last=3, keep_every=10 * save_every)
    changed: dict[str, Part] = dict(tokens=dict(variants=variants), evaluate=dict(limit=8))
    callbacks, tiny_callbacks = watching(changed, tokens=written, ema=ema, **looks, checkpoint=saved)
    callbacks |= other_logs(given)
    tiny = dict(dataset=dict(_delete_=True, **digits), model=dict(generator=small, tokenizer=frozen.tiny))
    tiny |= dict(optimizers=dict(generator=dict(schedule=TINY_SCHEDULE)), callbacks=tiny_callbacks)
    without = dict(metrics=dict(reconstructed=None, generated=None))
    return merge(
        images,
        strategy(given, precision='bf16'),
        frozen.imports,
        dict(
            trainer=dict(type='Trainer', iters=iters, model=model, optimizers=optimizers, callbacks=callbacks),
            validator=dict(type='Validator', metrics=metrics, callbacks=of_types(token_report='TokenReportCallback')),
            tiny=merge(tiny_data(given), dict(trainer=tiny, validator=without)),
        ),
    )


@recipe(token_generator)
def class_to_image(given: Given) -> Config:
    """A language model of 24 layers over one joint vocabulary of classes and tokens, with guidance. 260,000 steps of 96."""
    network = dict(ffn_dim=2816, rope='line', vocabulary='joint', predicts='vocabulary', dropout=0.0)
    training = dict(batch_size=96, iters=260_000, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    sampler = dict(type='Multinomial', top_k=600, top_p=0.92)
    return token_generator(given, sampler=sampler, **network, **training)


@recipe(token_generator, digits_features)
def digits_generator(
    given: Given,
    *,
    features_run: Annotated[str | None, 'a run of ic/digits.py: figures on its features; None: no such figures'] = None,
) -> Config:
    """A small generator of handwritten digits, trained on the tokens of a digits tokenizer."""
    tokens = dict(it_config='configs/digits/vq_ema.py', variants=('center',))
    schedule = dict(type='CosineSchedule', warmup=50, final=0.02)
    training = dict(dim=128, depth=4, heads=4, iters=600, lr=3e-3, ema=0.99, precision='fp32', schedule=schedule)
    sampler, guidance = dict(type='Multinomial', temperature=0.6), dict(type='ConstantGuidance', scale=2.0)
    features = None if features_run is None else digits_features(given, features_run=features_run)
    measured = dict(sampler=sampler, guidance=guidance, features=features, figures=('fid', 'precision_recall'))
    watched = dict(save_every=300, pictures_every=300, evaluate=200, evaluate_limit=None)
    return token_generator(given, **IMAGES, **LOADING, **tokens, **training, **measured, **watched)
