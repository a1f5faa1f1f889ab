"""A generator of tokens: what every autoregressive and masked model shares.

    image -> frozen tokenizer -> tokens, once; class, tokens -> generator -> cross entropy

Which tokenizer: ``tokenizer_run``, ``ir_config`` (with ``ir_state_dict``, ``it_state_dict``) or ``it_config`` (with
``it_state_dict``); see ../models/frozen_tokenizer.py. Its tokens are written once, before the first step, into the folder of
the run. Options for that: ``tokens`` (a folder to share between runs, or what vq.tasks.image_tokenization.tokenize wrote),
``variants`` (('center', 'flip')), ``on_the_fly`` (False; True: tokenise augmented images in every step).

Which generator: ``generator`` (a whole dict), ``method`` (masked: a MaskedGenerator, and its own options), or

- ``network`` (llama; or gpt2, hf_llama, hf_gpt2), ``dim``, ``depth``, ``heads``, or ``size`` (B, L, XL, XXL, 3B) in their
  place; with llama ``kv_heads``, ``ffn_dim``, ``rope`` (grid; line: what Hugging Face's Llama knows), ``dropout`` (0.1)
- with hf_llama and hf_gpt2 further ``settings`` of the package's config, and ``network_weights``, a folder of its weights
- ``vocabulary`` (prefix: the class has an embedding of its own; joint: classes are ids of the network)
- ``num_classes`` (1000; 0: unconditional), ``label_drop`` (0.1), ``predicts`` (segment; vocabulary: the loss of a language
  model over all ids)

How it is drawn from: ``sampler`` (Multinomial), ``guidance`` (constant, 1.75), ``draws`` (what validation draws).

Others: ``iters`` (250,000), ``batch_size`` (256 in total), ``lr`` (1e-4), ``betas``, ``weight_decay``, ``label_smoothing``,
``ema`` (None), ``evaluate`` (25,000), ``reference`` (of FID), ``features`` (the feature network; None: no such figures),
``dataset`` (imagenet), ``image_size`` (256), ``strategy`` (ddp), ``precision`` (bf16).
"""

import math

from vq.cli.counting import token_facts
from vq.core import PyConfig
from vq.generators.networks.llama import llama_size

_kwargs_.setdefault('dataset', 'imagenet')
_kwargs_.setdefault('image_size', 256)
_kwargs_.setdefault('augmentation', 'weak' if _kwargs_.get('on_the_fly') else 'none')
_kwargs_.setdefault('batch_size', 256)
_kwargs_.setdefault('val_batch_size', 64)
_kwargs_.setdefault('batch_size_in_total', True)
_kwargs_.setdefault('num_workers', 4)
_kwargs_.setdefault('strategy', 'ddp')
_kwargs_.setdefault('precision', 'bf16')
_kwargs_.setdefault('size', 'L')
_kwargs_.setdefault('rope', 'grid')

found = PyConfig.load('../models/frozen_tokenizer.py')
classes, label_drop = _kwargs_.get('num_classes', 1000), _kwargs_.get('label_drop', 0.1)
vocabulary, dropout = _kwargs_.get('vocabulary', 'prefix'), _kwargs_.get('dropout', 0.1)
MASKED = ('mask_ratio', 'steps', 'order', 'choice_temperature', 'tied', 'mlp_ratio')
TINY = dict(dim=32, depth=2, heads=2)


def network_of(kind, ids, shape, width, dropout):
    length = _kwargs_.get('positions', math.prod(shape))  # of published tables more than there are tokens
    if kind == 'llama':
        grid = _kwargs_['rope'] == 'grid' and len(shape) == 2
        places = dict(grid=shape, prefix=1) if grid else dict(length=length)
        kv = {name: _kwargs_[name] for name in ('kv_heads', 'ffn_dim') if name in _kwargs_}
        return dict(type='LlamaNetwork', vocabulary=ids, token_dropout=dropout, dropout=dropout, **kv, **places, **width)
    if kind == 'gpt2':
        return dict(type='GPT2Network', vocabulary=ids, length=length, dropout=dropout, **width)
    dim, depth, heads = (width[name] for name in ('dim', 'depth', 'heads'))
    if kind == 'hf_llama':
        settings = dict(hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * dim)
        kind = 'HuggingFaceLlama'
    else:
        settings = dict(n_embd=dim, n_layer=depth, n_head=heads)
        kind = 'HuggingFaceGPT2'
    settings |= {} if width is TINY else _kwargs_.get('settings', {})
    weights = {} if width is TINY else dict(weights=_kwargs_.get('network_weights'))
    return dict(type=kind, vocabulary=ids, length=length, settings=settings, **weights)


def generator_of(part, width, dropout):
    if 'generator' in _kwargs_:
        return dict(_kwargs_['generator'])
    codes, sizes, shape = token_facts(part)
    if _kwargs_.get('method') == 'masked':
        drawn = {name: _kwargs_[name] for name in MASKED if name in _kwargs_}
        common = dict(token_shape=shape, codebook_size=codes, classes=classes, label_drop=label_drop, dropout=dropout)
        return dict(type='MaskedGenerator', **common, **drawn, **width)
    total = sum(sizes) if sizes else codes
    ids = total + (classes + (label_drop > 0) if vocabulary == 'joint' else 0)
    return dict(
        type='Autoregressive',
        network=network_of(_kwargs_.get('network', 'llama'), ids, shape, width, dropout),
        token_shape=shape,
        codebook_size=codes,
        codebook_sizes=sizes,
        classes=classes,
        vocabulary=vocabulary,
        label_drop=label_drop,
        predicts=_kwargs_.get('predicts', 'segment'),
    )


tiny_part = PyConfig(part=found.part)
tiny_part.update(part=found.tiny)
own = {name: _kwargs_[name] for name in ('dim', 'depth', 'heads') if name in _kwargs_}
width = {**llama_size(_kwargs_['size']), **own}
network = _kwargs_.get('features', dict(type='FIDInception'))
reference = _kwargs_.get('reference')
decay = _kwargs_.get('ema')


def data():
    loaded = PyConfig.load('../datasets/interface.py')
    if not _kwargs_.get('on_the_fly'):
        loaded.trainer.dataset = dict(type='TokenDataset', source=loaded.trainer.dataset, folder=_kwargs_.get('tokens'))
    return loaded


def callbacks(tokens, schedule, ema, log, pictures, evaluation, checkpoint, backend):
    return [
        *([] if _kwargs_.get('on_the_fly') else [dict(type='TokensCallback', **tokens)]),
        dict(type='OptimizeCallback', clip=1.0, schedule=schedule),
        *([] if ema is None else [dict(type='EMACallback', decay=ema)]),
        dict(type='LogCallback', interval=log),
        *([] if backend is None else [dict(type='BackendsCallback', backends=[dict(type=backend)])]),
        dict(type='ProgressCallback'),
        dict(type='GitCallback'),
        dict(type='GenerationsCallback', **pictures),
        dict(type='PreemptionCallback'),
        *([] if _kwargs_.get('evaluate', 1) is None else [dict(type='EvalCallback', **evaluation)]),
        dict(type='CheckpointCallback', **checkpoint),
    ]


def metrics():
    figures = dict(type='FeatureMetric', network=network, reference=reference)
    return dict(
        tokens=dict(type='TokenMetric'),
        codebook=dict(type='CodebookMetric', codebook_size=token_facts(found.part)[0]),
        **(
            {}
            if network is None
            else dict(
                reconstructed=dict(**figures, prefix='reconstruct_'),
                generated=dict(
                    **figures,
                    figures=_kwargs_.get('figures', ('fid', 'inception_score')),
                    images='generated',
                    prefix='generate_',
                ),
            )
        ),
    )


save_every = _kwargs_.get('save_every', 10_000)
_base_ = [data(), '../strategies/interface.py']

_export_ = dict(
    **(dict(custom_imports=found.custom_imports) if found.custom_imports else {}),
    trainer=dict(
        type='Trainer',
        iters=_kwargs_.get('iters', 250_000),
        model=dict(
            type='SequenceModeling',
            generator=generator_of(found.part, width, dropout),
            tokenizer=found.part,
            sampler=_kwargs_.get('sampler', dict(type='Multinomial')),
            guidance=_kwargs_.get('guidance', dict(type='ConstantGuidance', scale=1.75)),
            label_smoothing=_kwargs_.get('label_smoothing', 0.0),
            draws=_kwargs_.get('draws', ('generated', 'half_generated', 'teacher_forced')),
        ),
        optimizers=dict(
            generator=dict(
                type='AdamW',
                lr=_kwargs_.get('lr', 1e-4),
                betas=_kwargs_.get('betas', (0.9, 0.95)),
                eps=_kwargs_.get('eps', 1e-8),
                weight_decay=_kwargs_.get('weight_decay', 0.05),
                decay='matrices',
            )
        ),
        callbacks=callbacks(
            dict(batch_size=64, num_workers=_kwargs_['num_workers'], variants=_kwargs_.get('variants', ('center', 'flip'))),
            _kwargs_.get('schedule', dict(type='CosineSchedule')),
            decay,
            50,
            dict(interval=_kwargs_.get('pictures_every', 5000)),
            dict(interval=_kwargs_.get('evaluate', 25_000), limit=_kwargs_.get('evaluate_limit', 10_000)),
            dict(interval=save_every, keep_last=3, keep_every=10 * save_every),
            _kwargs_.get('backend', 'TensorboardVisBackend'),
        ),
    ),
    validator=dict(type='Validator', metrics=metrics(), callbacks=[dict(type='TokenReportCallback')]),
    tiny=dict(
        trainer=dict(
            iters=8,
            dataset=dict(_delete_=True, type='DigitsDataset', split='train', image_size=32)
            if _kwargs_.get('on_the_fly')
            else dict(
                _delete_=True,
                type='TokenDataset',
                source=dict(type='DigitsDataset', split='train', image_size=32),
            ),
            dataloader=dict(batch_size=8, num_workers=0, batch_size_in_total=False),
            strategy=dict(_delete_=True, type='BaseStrategy'),
            model=dict(
                generator=dict(_delete_=True, **generator_of(tiny_part.part, TINY, dropout))
                if 'tiny_generator' not in _kwargs_
                else _kwargs_['tiny_generator'],
                tokenizer=found.tiny,
            ),
            callbacks=callbacks(
                dict(batch_size=60, variants=_kwargs_.get('variants', ('center', 'flip'))),
                dict(type='CosineSchedule', warmup=2),
                None if decay is None else 0.9,
                2,
                dict(interval=8, each=1),
                dict(interval=8, limit=8),
                dict(interval=4),
                None,
            ),
        ),
        validator=dict(
            dataset=dict(_delete_=True, type='DigitsDataset', split='validation', image_size=32),
            dataloader=dict(batch_size=60, num_workers=0, batch_size_in_total=False),
            metrics=dict(codebook=dict(codebook_size=token_facts(tiny_part.part)[0]), reconstructed=None, generated=None),
        ),
    ),
)
