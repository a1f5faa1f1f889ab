"""The cases of ``same.py``: option sets by family, and seeded runs."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Sequence
from typing import Any

Options = dict[str, Any]
Case = dict[str, Any]  # entry, tiny, options: a config for both checkouts to compose

FOLDER = {'dataset': 'folder', 'data_root': 'data/mine', 'augmentation': 'weak', 'bad_images': 'skip'}
RUNNING = {'iters': 77, 'batch_size': 24, 'val_batch_size': 12, 'num_workers': 1, 'strategy': 'fsdp', 'precision': 'fp16'}
LLAMAS = [{'size': size} for size in ('B', 'L', 'XL', 'XXL', '3B')]
DIGITS_TOKENIZERS = (
    'bsq cvq cvq_multinomial demo entropy fsq fsq_sgd grouped gumbel ibq kl lfq multi_scale residual simvq vq_directions '
    'vq_ema vq_kmeans vq_plain vq_reinit vq_restart vq_rotation vqgan'
)

# (entries, option sets for each of these entries); every entry is also composed without options
OPTIONS: tuple[tuple[str, list[Options]], ...] = (
    ('*', [{'strategy': 'ddp', 'precision': 'bf16'}, {'accumulate': 2, 'batch_size': 24}]),
    ('vqgan/*', [{'image_size': 128}, {'num_embeddings': 512, 'embedding_dim': 32}, {'ema': 0.99, 'evaluate': None}]),
    ('vqgan/*', [FOLDER, RUNNING, {'lr': 1e-3, 'discriminator_lr': 1e-4, 'betas': (0.0, 0.9), 'width': 32, 'refine': False}]),
    (
        'cvqvae/*',
        [{'num_embeddings': 512}, {'distance': 'l2'}, {'codebook': {'normalize': True}}, {'image_size': 128}, FOLDER],
    ),
    ('fsq/*', [{'levels': [8, 8, 5, 5]}, {'bound': 'tanh'}, {'widths': (64, 32)}, FOLDER, {'ema': 0.99}]),
    ('sq/*', [{'levels': [8, 8, 5, 5]}, {'widths': (64, 32)}, FOLDER]),
    ('llamagen/vqgan_*', [{'num_embeddings': 512, 'embedding_dim': 4}, {'discriminator_start': 7}, FOLDER, RUNNING]),
    ('vqvae_gan_study/*', [{'recipe': 'later'}, {'recipe': 'tables'}, {'num_embeddings': 512}, {'images': 5000, 'epochs': 3}]),
    ('vqvae_gan_study/*', [{'reinit': 3}, {'adversarial': 'fixed', 'r1': 0.625}, FOLDER, {'image_size': 128}, {'lr': 1e-3}]),
    ('vq/*', [{'num_embeddings': 512, 'embedding_dim': 32, 'width': 64}, {'image_size': 128}, RUNNING]),
    ('vq/folder.py', [{'data_root': 'data/mine', 'bad_images': 'skip'}]),
    ('ar/*', [*LLAMAS, {'it_config': 'configs/fsq/8000_imagenet_ddp.py'}, {'image_size': 128}, {'on_the_fly': True}]),
    ('ar/*', [{'method': 'masked', 'steps': 6, 'order': 'halton'}, {'network': 'gpt2'}, {'ema': 0.999}, RUNNING]),
    ('ar/*', [{'ir_config': 'configs/decoder/vqgan.py'}, {'dim': 64, 'depth': 2, 'heads': 2, 'vocabulary': 'prefix'}]),
    ('ar/*', [{'it_config': 'configs/digits/residual.py', 'dataset': 'digits', 'image_size': 32, 'num_classes': 10}]),
    ('llamagen/gpt_*', [*LLAMAS, {'it_config': 'configs/llamagen/vqgan_f8_256_imagenet_ddp.py'}]),
    (
        'maskgit/*',
        [{'mask_ratio': 'mage'}, {'steps': 8, 'choice_temperature': 2.0}, {'ir_config': 'configs/decoder/vqgan.py'}],
    ),
    ('maskgit/*', [{'it_config': 'configs/fsq/64000_imagenet_ddp.py'}, {'num_classes': 0, 'guidance': None}]),
    ('mage/*', [{'mask_min': 0.25, 'decoder_dim': 64, 'decoder_heads': 2}, {'order': 'halton', 'steps': 3}]),
    ('decoder/*', [{'decoder': 'vqkd'}, {'decoder': 'vqkd_large'}, {'it_config': 'configs/fsq/8000_imagenet_ddp.py'}, FOLDER]),
    ('decoder/*', [{'width': 64, 'refine': False}, {'it_config': 'configs/vqvae_gan_study/vqgan_1024_ema.py'}, RUNNING]),
    (
        'ic/imagenet*',
        [{'it_config': 'configs/fsq/8000_imagenet_ddp.py'}, {'gives': 'features', 'grid': 2}, {'ema': 0.99}, FOLDER],
    ),
    ('digits/*', [{'iters': 77, 'lr': 1e-3}]),
    ('digits/ar*', [{'it_config': 'configs/digits/fsq.py'}, {'dim': 64, 'depth': 2, 'evaluate': None}, {'on_the_fly': True}]),
    ('digits/maskgit.py', [{'it_config': 'configs/digits/vqgan.py'}, {'order': 'halton', 'steps': 3}]),
    ('digits/decoder.py', [{'ir_config': 'configs/digits/vqgan.py', 'start': 150}, {'it_config': 'configs/digits/fsq.py'}]),
    ('digits/probe.py', [{'it_config': 'configs/digits/fsq.py'}, {'gives': 'features'}]),
    ('ic/digits.py', [{'classifier_width': 8}, {'image_size': 16}, {'ema': 0.9}]),
    *((f'digits/{name}.py', [{'image_size': 64, 'width': 8}, RUNNING]) for name in DIGITS_TOKENIZERS.split()),
    ('photos/*', [{'size': 'M'}, {'size': 'L', 'iters': 77, 'lr': 1e-4}]),
    ('photos/tokenizer*', [{'image_size': 128, 'data_root': 'data/mine', 'held_out': 0.2}, {'codebook_size': 64}]),
    ('photos/tokenizer_gan.py', [{'gain': 0.2, 'start': 9, 'discriminator_lr': 1e-4}]),
    ('photos/ar.py', [{'num_classes': 5, 'guidance': 3.0, 'data_root': 'data/mine'}, {'on_the_fly': False, 'dim': 64}]),
    ('digits/vq_ema.py', [{'codebook_size': 128, 'embedding_dim': 4}]),
    ('digits/vqgan.py', [{'codebook_size': 128}, {'gain': 0.2, 'start': 9, 'discriminator_lr': 1e-4}]),
)


def cases(entries: Sequence[str], with_options: bool = True) -> Iterator[Case]:
    """Each entry in full and tiny form, without options and with each option set of its family."""
    for entry in entries:
        sets = [options for pattern, found in OPTIONS if fnmatch.fnmatch(entry, pattern) for options in found]
        for options in [{}, *(sets if with_options else [])]:
            for tiny in (False, True):
                yield {'entry': entry, 'tiny': tiny, 'options': options}


# training


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of ``vq.train`` with the default seed. ``upon``: an earlier run, whose tokenizer it uses."""

    name: str
    config: str
    options: tuple[str, ...] = ()
    tiny: bool = False
    upon: str | None = None


def tiny(config: str) -> Run:
    return Run(f'tiny/{config}', f'configs/{config}.py', tiny=True)


RUNS = (
    Run('digits/demo', 'configs/digits/demo.py', ('iters:60',)),
    Run('digits/vqgan', 'configs/digits/vqgan.py', ('iters:60', 'start:20')),
    Run('digits/ar', 'configs/digits/ar.py', ('iters:60', 'evaluate:50'), upon='digits/demo'),
    Run('digits/maskgit', 'configs/digits/maskgit.py', ('iters:60', 'evaluate:50'), upon='digits/demo'),
    Run('ic/digits', 'configs/ic/digits.py', ('iters:60',)),
    tiny('vqgan/8192_dd2_aglwg075_imagenet_ddp'),
    tiny('cvqvae/8192_contrastive_imagenet_ddp'),
    tiny('fsq/8000_imagenet_ddp'),
    tiny('llamagen/vqgan_imagenet_ddp'),
    tiny('vqvae_gan_study/vqgan_1024_gumbel_later'),
    tiny('vqvae_gan_study/vqvae_4096_reinit_10'),
    tiny('ar/c2i_llama_medium_cfg_imagenet_ddp'),
    tiny('maskgit/imagenet_ddp'),
    tiny('ic/imagenet_ddp'),
    tiny('decoder/vqgan'),
)
QUICK_RUNS = (Run('digits/demo', 'configs/digits/demo.py', tiny=True), Run('ic/digits', 'configs/ic/digits.py', tiny=True))
