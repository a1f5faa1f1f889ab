"""Specs agree with the built models: sizes of shipped tasks, of converted files, of unusual datasets."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.shipped import composed
from vq.assembly.compose import checked
from vq.data.decode import BadImage
from vq.interfaces import Dataset, Sample, Task
from vq.io.runs import find
from vq.io.spec import LatentSpec, Spec, TokenSpec, guess, preprocessing_of
from vq.registries import VQDatasetRegistry, VQTaskRegistry
from vq.tasks.spec import image_shape, spec_of

DIGITS = {'dataset': 'digits', 'split': 'train', 'images': 1437, 'classes': 10}


@functools.cache
def found(entry: str) -> tuple[Spec, Task]:
    config = composed(entry, tiny=False)
    trainer = checked(config, 'trainer')
    with torch.device('meta'):
        model: Task = VQTaskRegistry.build(trainer['model'], 'model')
    dataset: Dataset = VQDatasetRegistry.build(trainer['dataset'], 'dataset')
    return spec_of(model, dataset, preprocessing_of(config)), model


@pytest.mark.parametrize(
    ('entry', 'kind', 'tokens', 'latent'),
    [
        ('digits/vq_ema.py', 'tokenizer', TokenSpec((4, 4), (256,)), LatentSpec(8, (4, 4))),
        ('digits/vqgan.py', 'tokenizer', TokenSpec((4, 4), (256,)), LatentSpec(8, (4, 4))),
        ('digits/kl.py', 'tokenizer', None, LatentSpec(8, (4, 4))),
        ('digits/residual.py', 'tokenizer', TokenSpec((4, 4), (16, 16)), LatentSpec(8, (4, 4))),
        ('digits/multi_scale.py', 'tokenizer', TokenSpec((30,), (16,)), LatentSpec(8, (4, 4))),
        ('digits/decoder.py', 'decoder', TokenSpec((4, 4), (256,)), LatentSpec(8, (4, 4))),
        ('digits/ar.py', 'generator', TokenSpec((4, 4), (256,)), None),
        ('digits/ar_residual.py', 'generator', TokenSpec((4, 4), (16, 16)), None),
        ('digits/maskgit.py', 'generator', TokenSpec((4, 4), (256,)), None),
        ('ic/digits.py', 'classifier', None, None),
    ],
)
def test_of_shipped_tasks(entry: str, kind: str, tokens: TokenSpec | None, latent: LatentSpec | None) -> None:
    spec, model = found(entry)
    assert (spec.kind, spec.image, spec.tokens, spec.latent) == (kind, (32, 32), tokens, latent)
    assert {name: spec.trained_on[name] for name in DIGITS} == DIGITS
    assert spec.preprocessing == {'range': [-1.0, 1.0], 'transform': None}
    assert spec.categories == (() if entry == 'digits/ar_residual.py' else tuple('0123456789')), 'it draws no classes'
    if kind == 'classifier':
        assert spec.trained_on['names'] == [*'0123456789']
    # what an older run gets from its config agrees, as far as a config says it
    guessed = guess(composed(entry, tiny=False))
    assert (guessed.kind, guessed.image, guessed.preprocessing) == (spec.kind, spec.image, spec.preprocessing)
    codes: Any = model if kind == 'generator' else getattr(model, 'tokenizer', None)
    assert tokens is None or codes.codebooks in (tokens.codebooks, ())


def test_images_of_any_size_are_seen_and_tokens_are_left_out_where_they_do_not_fit() -> None:
    class Wide(Dataset):
        name, split = 'wide', 'train'

        def __len__(self) -> int:
            return 3

        def load(self, index: int, stream: Any) -> Sample:
            if index == 0:
                raise BadImage('0', 'is damaged')
            return Sample(image=np.zeros((32, 64, 3), np.uint8), id=str(index))

    assert image_shape(Wide()) == (32, 64)
    spec = spec_of(found('digits/vq_ema.py')[1], Wide())
    assert (spec.image, spec.tokens, spec.latent) == ((32, 64), TokenSpec((4, 8), (256,)), LatentSpec(8, (4, 8)))
    assert spec.trained_on == {'dataset': 'wide', 'split': 'train', 'images': 3, 'classes': None}

    class Odd(Wide):
        def load(self, index: int, stream: Any) -> Sample:
            return Sample(image=np.zeros((30, 30, 3), np.uint8), id=str(index))

    assert spec_of(found('digits/vq_ema.py')[1], Odd()).tokens is None  # 30 pixels are no whole number of cells

    class Broken(Wide):
        def load(self, index: int, stream: Any) -> Sample:
            raise BadImage(str(index), 'is damaged')

    assert image_shape(Broken()) is None and spec_of(found('digits/vq_ema.py')[1], Broken()).image is None


@pytest.mark.parametrize('sample', [Sample(id='0'), Sample(id='0', image=np.zeros((0, 0, 3)))])
def test_a_generator_knows_its_images_by_its_tokenizer(sample: Sample) -> None:
    """Token shards can exist without their images. A dataset of a user can still give empty ones."""
    bare = SimpleNamespace(name='tokens', split='train', categories=None, load=lambda *_: sample)
    dataset: Any = type('Shards', (), {**vars(bare), '__len__': lambda self: 5})()
    assert spec_of(found('digits/ar.py')[1], dataset).image == (32, 32)


def test_a_generator_on_tokens_alone_has_the_class_names_of_its_tokenizer(tmp_path: Path) -> None:
    """Only if they are those of as many classes as it draws."""
    file = tmp_path / 'model.safetensors'
    about = Spec('tokenizer', (32, 32), categories=tuple('abcdefghij'))
    _, task = found('digits/ar.py')
    bare: Any = type('Shards', (Dataset,), {'name': 'x', 'split': 'y', '__len__': lambda self: 1, 'load': lambda *_: none})()
    none = Sample(image=np.zeros((0, 0, 3), np.uint8), id='0')
    names = SimpleNamespace(spec=about)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task.tokenizer, 'weights', str(file))
        patch.setattr('vq.tasks.spec.find', lambda name: {str(file): names}[name])
        assert spec_of(task, bare).categories == tuple('abcdefghij')
        names.spec = Spec('tokenizer', (32, 32), categories=('a', 'b'))
        assert spec_of(task, bare).categories == ()
        patch.setattr(task.tokenizer, 'weights', str(tmp_path / 'gone'))
        patch.setattr('vq.tasks.spec.find', find)
        assert spec_of(task, bare).categories == (), 'a tokenizer that is gone has no names, and is no error here'


def test_of_a_task_that_is_none_of_ours() -> None:
    task = Task()
    task.network = nn.Linear(2, 2)
    assert spec_of(task) == Spec('model')


def test_the_transform_of_evaluation_is_told() -> None:
    config = composed('vqgan/8192_imagenet_ddp.py', tiny=False)
    expected = {'type': 'VQTransformRegistry.none', 'image_size': 256}
    assert preprocessing_of(config) == {'range': [-1.0, 1.0], 'transform': expected}
    assert guess(config).image == (256, 256)
