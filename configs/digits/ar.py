"""Handwritten digits, one token after the other: a small Llama on the 16 tokens of a digits tokenizer, with guidance.

    auto_torchrun -m vq.train  digits configs/digits/vq_ema.py
    auto_torchrun -m vq.train  digits_ar configs/digits/ar.py --config-options tokenizer_run::digits
    auto_torchrun -m vq.val    digits_ar configs/digits/ar.py --config-options tokenizer_run::digits
    auto_torchrun -m vq.sample digits_ar configs/digits/ar.py --config-options tokenizer_run::digits \\
        --load-model-from work_dirs/digits_ar

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
