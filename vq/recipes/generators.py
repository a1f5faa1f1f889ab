"""Generators of tokens: autoregressive and masked.

image -> frozen tokenizer -> tokens, once;    class, tokens -> generator -> cross entropy
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.recipes.classification import digits_features
from vq.recipes.frozen import frozen_tokenizer
from vq.recipes.parts import averaging, data, every, strategy, tiny_data, watching

SIZES = {  # LlamaGen's; B, L and XL are those of its published files, XXL and 3B those of its paper
    'B': dict(dim=768, depth=12, heads=12),
    'L': dict(dim=1024, depth=24, heads=16),
    'XL': dict(dim=1280, depth=36, heads=20),
    'XXL': dict(dim=1536, depth=48, heads=24),
    '3B': dict(dim=3200, depth=24, heads=32),
}
TINY = dict(dim=32, depth=2, heads=2)
INCEPTION = dict(type='FIDInception')
PICTURES = ('generated', 'half_generated', 'teacher_forced')


def chosen(**settings: Any) -> dict[str, Any]:
    """Settings that are not None: the others have the default of the part."""
    return {name: value for name, value in settings.items() if value is not None}


# networks; how many ids and positions they have follows from the tokens


@recipe()
def llama(
    given: Given,
    width: dict[str, int],
    dropout: float,
    *,
    rope: Annotated[Literal['grid', 'line'], "positions: of a grid, or in a line, as Hugging Face's Llama has them"] = 'grid',
    kv_heads: Annotated[int | None, 'heads of keys and values; None: as heads'] = None,
    ffn_dim: Annotated[int | None, 'channels within feed-forward layers; None: from dim'] = None,
) -> Part:
    """LlamaNetwork."""
    own = chosen(kv_heads=kv_heads, ffn_dim=ffn_dim)
    return dict(type='LlamaNetwork', rope=rope, token_dropout=dropout, dropout=dropout, **own, **width)


@recipe()
def hugging_face(
    given: Given,
    kind: str,
    width: dict[str, int],
    *,
    settings: Annotated[dict[str, Any], "further settings of the package's config"] = {},
    network_weights: Annotated[str | None, 'folder of its weights; None: random'] = None,
) -> Part:
    """A network of the package transformers."""
    dim, depth, heads = width['dim'], width['depth'], width['heads']
    if kind == 'hf_llama':
        own = dict(hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * dim)
    else:
        own = dict(n_embd=dim, n_layer=depth, n_head=heads)
    kind = 'HuggingFaceLlama' if kind == 'hf_llama' else 'HuggingFaceGPT2'
    if width == TINY:
        return dict(type=kind, settings=own)
    return dict(type=kind, settings={**own, **settings}, weights=network_weights)


@recipe(llama, hugging_face)
def autoregressive(
    given: Given,
    width: dict[str, int],
    common: dict[str, Any],
    dropout: float,
    *,
    network: Annotated[Literal['llama', 'gpt2', 'hf_llama', 'hf_gpt2'], 'what predicts the next token'] = 'llama',
    vocabulary: Annotated[
        Literal['prefix', 'joint'], 'prefix: the class has an embedding of its own; joint: classes are ids of the network'
    ] = 'prefix',
    predicts: Annotated[Literal['segment', 'vocabulary'], 'vocabulary: the loss of a language model over all ids'] = 'segment',
    positions: Annotated[int | None, 'of position tables; None: as many as there are tokens'] = None,
) -> Part:
    """Tokens one after the other."""
    if network == 'llama':
        part = llama(given, width, dropout)
    elif network == 'gpt2':
        part = dict(type='GPT2Network', dropout=dropout, **width)
    else:
        part = hugging_face(given, network, width)
    part |= chosen(length=positions)
    return dict(type='Autoregressive', network=part, vocabulary=vocabulary, predicts=predicts, **common)


@recipe()
def masked(
    given: Given,
    width: dict[str, int],
    common: dict[str, Any],
    dropout: float,
    *,
    mask_ratio: Annotated[str | None, 'of training: cosine, mage'] = None,
    steps: Annotated[int | None, 'of drawing'] = None,
    order: Annotated[Literal['confidence', 'halton'] | None, 'in which tokens are filled in'] = None,
    choice_temperature: Annotated[float | None, 'noise of that order'] = None,
    tied: Annotated[bool | None, 'embeddings are the head'] = None,
    mlp_ratio: Annotated[float | None, 'of feed-forward layers to dim'] = None,
) -> Part:
    """All tokens at once, again and again."""
    own = dict(mask_ratio=mask_ratio, steps=steps, order=order, choice_temperature=choice_temperature, tied=tied)
    return dict(type='MaskedGenerator', dropout=dropout, **common, **chosen(**own, mlp_ratio=mlp_ratio), **width)


@recipe(autoregressive, masked)
def generator_part(
    given: Given,
    tiny: bool,
    *,
    method: Annotated[Literal['autoregressive', 'masked'], 'how tokens are drawn'] = 'autoregressive',
    size: Annotated[Literal['B', 'L', 'XL', 'XXL', '3B'], 'dim, depth and heads, where they are not given'] = 'L',
    dim: Annotated[int | None, 'channels'] = None,
    depth: Annotated[int | None, 'layers'] = None,
    heads: Annotated[int | None, 'of attention'] = None,
    num_classes: Annotated[int, '0: unconditional'] = 1000,
    label_drop: Annotated[float, 'share of labels that are dropped in training, which guidance needs'] = 0.1,
    dropout: Annotated[float, 'of tokens and layers'] = 0.1,
) -> Part:
    """The generator, or its tiny form."""
    width = dict(TINY) if tiny else {**SIZES[size], **chosen(dim=dim, depth=depth, heads=heads)}
    build = masked if method == 'masked' else autoregressive
    part: Part = build(given, width, dict(classes=num_classes, label_drop=label_drop), dropout)
    return part


@recipe(frozen_tokenizer, generator_part, data, strategy)
def token_generator(
    given: Given,
    *,
    generator: Annotated[Part | None, 'the whole generator, in place of all that is said of it'] = None,
    tiny_generator: Annotated[Part | None, 'what changes in it when tiny'] = None,
    on_the_fly: Annotated[bool, 'tokenise augmented images in every step, in place of writing tokens once'] = False,
    tokens: Annotated[str | None, 'folder of tokens, to share between runs; None: in the run folder'] = None,
    variants: Annotated[tuple[str, ...], 'of each image: center, flip, ...'] = ('center', 'flip'),
    sampler: Annotated[Part, 'how a token is drawn of its logits'] = dict(type='Multinomial'),
    guidance: Annotated[Part, 'of the class, when drawing'] = dict(type='ConstantGuidance', scale=1.75),
    draws: Annotated[tuple[str, ...], 'what validation draws'] = PICTURES,
    label_smoothing: Annotated[float, 'of the cross entropy'] = 0.0,
    iters: Annotated[int, 'optimizer steps'] = 250_000,
    lr: Annotated[float, 'of AdamW'] = 1e-4,
    betas: Annotated[tuple[float, float], 'of AdamW'] = (0.9, 0.95),
    eps: Annotated[float, 'of AdamW'] = 1e-8,
    weight_decay: Annotated[float, 'of AdamW, of matrices only'] = 0.05,
    schedule: Annotated[Part, 'of the learning rate'] = dict(type='CosineSchedule'),
    ema: Annotated[float | None, 'decay of the moving average of weights; None: no average'] = None,
    evaluate: Annotated[int | None, 'steps between evaluations during training; None: none'] = 25_000,
    evaluate_limit: Annotated[int | None, 'images of such an evaluation; None: all'] = 10_000,
    pictures_every: Annotated[int, 'steps between drawings'] = 5000,
    save_every: Annotated[int, 'steps between checkpoints'] = 10_000,
    log_backend: Annotated[str | None, 'type of a logging back end'] = 'TensorboardVisBackend',
    features: Annotated[Part | None, 'feature network of FID and others; None: no such figures'] = INCEPTION,
    figures: Annotated[tuple[str, ...], 'of drawn images'] = ('fid', 'inception_score'),
    reference: Annotated[str | None, 'of FID: the name of cached statistics; None: the images themselves'] = None,
) -> Config:
    """Train a generator on tokens of a frozen tokenizer, which are written once, before the first step."""
    usual = dict(batch_size=256, val_batch_size=64, batch_size_in_total=True, num_workers=4)
    images = data(given, dataset='imagenet', image_size=256, augmentation='weak' if on_the_fly else 'none', **usual)
    frozen, source = frozen_tokenizer(given), dict(type='DigitsDataset', split='train', image_size=32)
    workers = images['trainer']['dataloader']['num_workers']
    if not on_the_fly:
        images['trainer']['dataset'] = dict(type='TokenDataset', source=images['trainer']['dataset'], folder=tokens)
        source = dict(type='TokenDataset', source=source)
    measured: Part = dict(type='FeatureMetric', network=features, reference=reference)
    metrics: Part = dict(tokens=dict(type='TokenMetric'), codebook=dict(type='CodebookMetric'))
    if features is not None:
        metrics['reconstructed'] = dict(measured, prefix='reconstruct_')
        metrics['generated'] = dict(measured, figures=figures, images='generated', prefix='generate_')
    adam = dict(type='AdamW', lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decay='matrices')
    model = dict(
        type='SequenceModeling',
        generator=dict(generator) if generator else generator_part(given, False),
        tokenizer=frozen.part,
        sampler=sampler,
        guidance=guidance,
        label_smoothing=label_smoothing,
        draws=draws,
    )
    small = dict(_delete_=True, **(generator or generator_part(given, True))) if tiny_generator is None else tiny_generator
    whole = watching(
        tokens=None if on_the_fly else dict(batch_size=64, num_workers=workers, variants=variants),
        ema=averaging(ema),
        log=dict(interval=50),
        backends=None if log_backend is None else dict(backends=[dict(type=log_backend)]),
        generations=dict(interval=pictures_every),
        evaluate=every(evaluate, limit=evaluate_limit),
        checkpoint=dict(interval=save_every, keep_last=3, keep_every=10 * save_every),
    )
    tiny_callbacks = watching(
        True,
        tokens=None if on_the_fly else dict(batch_size=60, variants=variants),
        ema=averaging(ema, True),
        log=dict(interval=2),
        generations=dict(interval=8, each=1),
        evaluate=every(evaluate and 8, limit=8),
        checkpoint=dict(interval=4),
    )
    return merge(
        images,
        strategy(given, strategy='ddp', precision='bf16'),
        dict(custom_imports=frozen.custom_imports) if frozen.custom_imports else {},
        dict(
            trainer=dict(
                type='Trainer',
                iters=iters,
                model=model,
                optimizers=dict(generator=dict(adam, clip=1.0, schedule=schedule)),
                callbacks=whole,
            ),
            validator=dict(type='Validator', metrics=metrics, callbacks=dict(token_report=dict(type='TokenReportCallback'))),
            tiny=merge(
                tiny_data(batch_size_in_total=False),
                dict(
                    trainer=dict(
                        dataset={'_delete_': True, **source},
                        model=dict(generator=small, tokenizer=frozen.tiny),
                        optimizers=dict(generator=dict(schedule=dict(_delete_=True, type='CosineSchedule', warmup=2))),
                        callbacks={**tiny_callbacks, 'backends': None},
                    ),
                    validator=dict(metrics=dict(reconstructed=None, generated=None)),
                ),
            ),
        ),
    )


@recipe(token_generator)
def class_to_image(given: Given) -> Config:
    """A language model of 24 layers over classes and tokens in one vocabulary, with guidance, 260,000 steps of 96 images."""
    return token_generator(
        given,
        batch_size=96,
        iters=260_000,
        ffn_dim=2816,
        rope='line',
        vocabulary='joint',
        predicts='vocabulary',
        dropout=0.0,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.2,
        sampler=dict(type='Multinomial', top_k=600, top_p=0.92),
    )


@recipe(token_generator, digits_features)
def digits_generator(
    given: Given,
    *,
    features_run: Annotated[str | None, 'a run of ic/digits.py: figures in the features of that classifier'] = None,
) -> Config:
    """A small generator of handwritten digits, on the tokens of a digits tokenizer."""
    return token_generator(
        given,
        dataset='digits',
        image_size=32,
        augmentation=None,
        batch_size=64,
        val_batch_size=60,
        num_workers=0,
        strategy='base',
        precision='fp32',
        it_config='configs/digits/vq_ema.py',
        variants=('center',),
        num_classes=10,
        dim=128,
        depth=4,
        heads=4,
        iters=600,
        lr=3e-3,
        ema=0.99,
        schedule=dict(type='CosineSchedule', warmup=50, final=0.02),
        sampler=dict(type='Multinomial', temperature=0.6),
        guidance=dict(type='ConstantGuidance', scale=2.0),
        features=None if features_run is None else digits_features(given, features_run=features_run),
        figures=('fid', 'precision_recall'),
        save_every=300,
        pictures_every=300,
        evaluate=200,
        evaluate_limit=None,
        log_backend=None,
    )
