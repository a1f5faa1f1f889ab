"""The objects that ``vq.load`` returns: forms of inputs and results, batches, classes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tasks.recipes import make_tokenizer
from tests.tasks.test_sequence_modeling import CLASSES, CODES, task
from vq.core.errors import UserError
from vq.data.inputs import Intake
from vq.loading import LoadedTokenizer
from vq.tasks.loaded import LoadedGenerator

CPU = torch.device('cpu')
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def tokenizer() -> LoadedTokenizer:
    torch.manual_seed(0)
    return LoadedTokenizer(make_tokenizer(), CPU, 'here', Intake((8, 8), batch_size=2))


@pytest.fixture
def generator() -> LoadedGenerator:
    return LoadedGenerator(task(), CPU, 'here', Intake((8, 8), batch_size=2), ('a', 'b', 'rocket', 'd', 'e'))


def test_forms_and_batches_change_no_token(tokenizer: LoadedTokenizer) -> None:
    images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    tokens = tokenizer.tokenize(images)
    assert tokens.shape == (5, *tokenizer.token_shape) and tokens.dtype == torch.int64
    assert torch.equal(tokens, tokenizer.model.tokenize(images.float() / 127.5 - 1))  # all five at once
    assert torch.equal(tokens, tokenizer.tokenize([Image.fromarray(image) for image in IMAGES]))
    assert torch.equal(tokens, tokenizer.tokenize(IMAGES / 255, value_range='0..1'))
    assert tokenizer.encode(IMAGES).shape[0] == 5
    assert torch.equal(tokenizer.prepare(IMAGES), images)


def test_results_in_every_form(tokenizer: LoadedTokenizer) -> None:
    tokens, expected = tokenizer.tokenize(IMAGES), tokenizer.reconstruct(IMAGES)
    assert expected.shape == (5, 3, 8, 8) and expected.dtype == torch.uint8
    assert torch.equal(tokenizer.detokenize(tokens.numpy()), expected)
    assert torch.equal(
        tokenizer.decode(tokenizer.model.lookup(tokens).half()),
        tokenizer.decode(tokenizer.model.lookup(tokens).half().float()),
    )
    array = tokenizer.reconstruct(IMAGES, to='numpy')
    assert np.array_equal(array, expected.permute(0, 2, 3, 1).numpy())
    for pictures in (tokenizer.reconstruct(IMAGES, to='pil'), tokenizer.detokenize(tokens.tolist(), to='pil')):
        assert all(np.array_equal(np.asarray(one), other) for one, other in zip(pictures, array, strict=True))


def test_a_misspelt_form_is_refused_before_the_work(tokenizer: LoadedTokenizer, generator: LoadedGenerator) -> None:
    for call in (tokenizer.reconstruct, tokenizer.detokenize, tokenizer.prepare, generator.complete):
        with pytest.raises(UserError, match="to is 'pill'; did you mean 'pil'"):
            call(object(), to='pill')  # type: ignore[operator]
    with pytest.raises(UserError, match="to is 'PIL'"):
        generator.sample(count=10**9, to='PIL')  # type: ignore[arg-type]


def test_a_tokenizer_without_a_decoder_says_so(tokenizer: LoadedTokenizer) -> None:
    tokenizer.model.can_decode = False
    with pytest.raises(UserError, match='VQGAN makes no pixels') as caught:
        tokenizer.reconstruct(IMAGES)
    assert 'docs/reconstruction.md' in caught.value.hint


def test_repr_says_what_it_is(tokenizer: LoadedTokenizer, generator: LoadedGenerator) -> None:
    assert repr(tokenizer) == (
        'VQGAN(here, 16 codes, (4, 4) tokens, images of 8 x 8 (others are resized and cropped at the centre), on cpu)'
    )
    assert repr(generator) == 'Autoregressive(here, 5 classes, (4, 4) tokens, images of 8 x 8, on cpu)'


def test_samples_do_not_depend_on_the_batches(generator: LoadedGenerator) -> None:
    found = generator.sample_tokens(count=7)
    generator.intake.batch_size = None
    assert torch.equal(generator.sample_tokens(count=7), found)
    assert found.shape == (7, 4, 4) and int(found.max()) < CODES
    images = generator.sample(count=7, to='numpy')
    assert np.array_equal(images, generator.detokenize(found).permute(0, 2, 3, 1).numpy())
    assert len(generator.sample(to='pil')) == CLASSES


def test_classes_are_numbers_or_names(generator: LoadedGenerator) -> None:
    expected = generator.sample_tokens([2, 2, 2])
    for classes in ('rocket', ['rocket'], np.int64(2), torch.tensor([2])):
        assert torch.equal(generator.sample_tokens(classes, count=3), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('settings', 'said', 'hint'),
    [
        (dict(classes='rockett'), "no class 'rockett'; did you mean 'rocket'", 'Its classes: a, b, rocket, d, e'),
        (dict(classes=[1, 5]), 'here has no class 5: it has 5', 'numbers from 0 to 4'),
        (dict(classes=-1), 'here has no class -1', 'numbers from 0 to 4'),
        (dict(count=0), '0 images are requested', '1 or more'),
        (dict(classes=[]), '0 images are requested', '1 or more'),
    ],
    ids=str,
)
def test_wrong_requests_are_refused(generator: LoadedGenerator, settings: Any, said: str, hint: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        generator.sample(**settings)
    assert hint in caught.value.hint


def test_kept_cells_are_those_of_the_images(generator: LoadedGenerator) -> None:
    tokens = generator.tokenizer.tokenize(torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 127.5 - 1)
    keep = torch.zeros(4, 4, dtype=torch.bool)
    keep[:2] = True
    drawn = generator.sample_tokens(0, given=tokens, keep=keep)
    assert torch.equal(drawn[:, keep], tokens[:, keep])
    assert np.array_equal(generator.complete(IMAGES, 0, keep, to='numpy'), generator.detokenize(drawn, to='numpy'))
