"""Handwritten digits, one token after the other: a small Llama on the 16 tokens of a digits tokenizer, with guidance.

    auto_torchrun -m vq.train  digits configs/digits/vq_ema.py
    auto_torchrun -m vq.train  digits_ar configs/digits/ar.py --config-options tokenizer_run::digits
    auto_torchrun -m vq.val    digits_ar configs/digits/ar.py --config-options tokenizer_run::digits
    auto_torchrun -m vq.sample digits_ar configs/digits/ar.py --config-options tokenizer_run::digits \\
        --load-model-from work_dirs/digits_ar

600 steps took 116 to 178 seconds on one of 2 shared CPU cores (111 to 118 seconds of CPU time), 500 digits 3 seconds.
Measured with seeds 3407, 1, 2, all on one tokenizer, that of ``make demo`` (seed 3407), 500 digits each, with the guidance
and sampler below: the classifier of ../ic/digits.py names 98.6, 98.0, 99.0 % as asked for (95.0, 94.0, 94.2 % without
guidance); the distance within a class is 0.79, 0.79, 0.76 of that of the training digits (0.87, 0.87, 0.86); no digit shares
more than 44, 50, 44 % of its tokens with a training digit (56, 44, 44 %). Expected: at least 95 % (75 % without guidance),
at least 0.65, at most 90 %. Training settings were chosen with other seeds, the temperature after a look at two of these (with
0.5 all bounds held too).

Options: ``tokenizer_run`` (any run of this family), ``features_run`` (a run of ic/digits.py: figures in the features of that
classifier), and those of ../ar/interface.py.
"""

from vq.core import PyConfig

_kwargs_.setdefault('dataset', 'digits')
_kwargs_.setdefault('image_size', 32)
_kwargs_.setdefault('augmentation', None)
_kwargs_.setdefault('batch_size', 64)
_kwargs_.setdefault('val_batch_size', 60)
_kwargs_.setdefault('num_workers', 0)
_kwargs_.setdefault('strategy', 'base')
_kwargs_.setdefault('precision', 'fp32')
_kwargs_.setdefault('it_config', 'configs/digits/vq_ema.py')
_kwargs_.setdefault('variants', ('center',))
_kwargs_.setdefault('num_classes', 10)
_kwargs_.setdefault('dim', 128)
_kwargs_.setdefault('depth', 4)
_kwargs_.setdefault('heads', 4)
_kwargs_.setdefault('iters', 600)
_kwargs_.setdefault('lr', 3e-3)
_kwargs_.setdefault('ema', 0.99)
_kwargs_.setdefault('schedule', dict(type='CosineSchedule', warmup=50, final=0.02))
_kwargs_.setdefault('sampler', dict(type='Multinomial', temperature=0.6))
_kwargs_.setdefault('guidance', dict(type='ConstantGuidance', scale=2.0))
_kwargs_.setdefault('figures', ('fid', 'precision_recall'))
_kwargs_.setdefault('save_every', 300)
_kwargs_.setdefault('pictures_every', 300)
_kwargs_.setdefault('evaluate', 200)
_kwargs_.setdefault('evaluate_limit', None)
_kwargs_.setdefault('backend', None)
_kwargs_.setdefault('features', PyConfig.load('../models/digits_features.py') if 'features_run' in _kwargs_ else None)

_base_ = ['../ar/interface.py']
