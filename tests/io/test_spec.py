"""A spec round trip is exact; types and sizes of an untrusted spec are checked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vq.core.errors import UserError
from vq.io import spec
from vq.io.spec import LatentSpec, Spec, TokenSpec, guess, jsonable, loads

sizes = st.integers(1, 2**16)
cells = st.lists(sizes, min_size=1, max_size=8).map(tuple)
specs = st.builds(
    Spec,
    st.sampled_from(spec.KINDS),
    st.none() | st.tuples(sizes, sizes),
    st.just({'range': [-1.0, 1.0], 'transform': None}),
    st.dictionaries(st.text(max_size=3), st.none() | sizes | st.text(max_size=3), max_size=3),
    st.none() | st.builds(TokenSpec, cells, cells),
    st.none() | st.builds(LatentSpec, sizes, cells),
    st.lists(st.text(min_size=1, max_size=5), max_size=4).map(tuple),
)
WHOLE = Spec('tokenizer', (32, 48), {}, {'classes': 3}, TokenSpec((2, 3), (8,)), LatentSpec(4, (2, 3))).as_json()


@pytest.mark.slow
@given(specs)
def test_it_comes_back(given: Spec) -> None:
    assert loads(json.dumps(given.as_json()), 'x') == given


def test_later_versions_may_add_fields() -> None:
    more = {**WHOLE, 'steps': 3, 'tokens': {**WHOLE['tokens'], 'bits': 3.0}}
    assert loads(json.dumps(more), 'x') == loads(json.dumps(WHOLE), 'x')
    with pytest.raises(UserError, match='x has version 2, and this vq reads up to 1') as caught:
        loads(json.dumps({**WHOLE, 'version': 2}), 'x')
    assert caught.value.hint == 'Upgrade vq.'
    assert loads('{"version": 1, "kind": "model"}', 'x') == Spec('model')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'version': '1'}, 'no version'),
        ({'version': True}, 'no version'),
        ({'kind': None}, 'kind is None'),
        ({'kind': 'a b'}, "kind is 'a b'"),
        ({'kind': 'a' * 41}, 'kind is'),
        ({'image': 32}, 'image is 32'),
        ({'image': [32]}, r'image is \[32\]'),
        ({'image': [32, 32, 3]}, r'image is \[32, 32, 3\]'),
        ({'image': [32.0, 32]}, r'image is \[32.0, 32\]'),
        ({'image': [0, 32]}, r'image is \[0, 32\]'),
        ({'image': [32, 65537]}, 'image is'),
        ({'image': [True, 32]}, 'image is'),
        ({'tokens': [4, 4]}, 'tokens is'),
        ({'tokens': {}}, 'cells is None'),
        ({'tokens': {'cells': [4], 'codebooks': []}}, r'codebooks is \[\]'),
        ({'tokens': {'cells': [4] * 9, 'codebooks': [8]}}, 'cells is'),
        ({'tokens': {'cells': [4], 'codebooks': [2**64]}}, 'codebooks is'),
        ({'latent': {'channels': '4', 'cells': [4]}}, "channels is '4'"),
        ({'latent': {'cells': [4]}}, 'channels is None'),
        ({'trained_on': []}, 'trained_on is'),
        ({'preprocessing': 'x'}, "preprocessing is 'x'"),
        ({'categories': 'cat'}, "categories is 'cat'"),
        ({'categories': ['cat', 3]}, "categories is .'cat', 3"),
        ({'categories': ['cat', '']}, "categories is .'cat', ''"),
        ({'categories': ['a' * 250_001]}, 'categories is'),
    ],
)
def test_types_and_sizes_are_judged(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f'spec of x is damaged: .*{message}'):
        loads(json.dumps({**WHOLE, **change}), 'x')


@pytest.mark.parametrize('text', ['', '[1]', '{', '[' * 100_000, '{"version": 1}' + ' ' * 1_000_000])
def test_what_is_no_spec(text: str, tmp_path: Path) -> None:
    (tmp_path / 'spec.json').write_text(text)
    with pytest.raises(UserError, match=r'spec of .*spec\.json is damaged'):
        spec.read(tmp_path / 'spec.json')


def test_class_names_are_there_only_if_classes_have_names() -> None:
    """So a run without names is read by versions that know none, and a spec of theirs has none."""
    assert 'categories' not in WHOLE and loads(json.dumps(WHOLE), 'x').categories == ()
    named = Spec('generator', categories=('boat', 'Übersicht'))
    assert named.as_json()['categories'] == ['boat', 'Übersicht'] and loads(json.dumps(named.as_json()), 'x') == named


def test_only_what_json_has_is_written() -> None:
    assert jsonable({1: (math.inf, {'a': [1.5, None, True]}), 'b': Path('x')}) == {
        '1': ['inf', {'a': [1.5, None, True]}],
        'b': 'x',
    }


def test_it_is_said_in_words() -> None:
    assert str(Spec('tokenizer', (32, 48), tokens=TokenSpec((2, 3), (8, 4)))) == '32 x 48 pixels, 2 x 3 tokens of 8 x 4 codes'
    assert str(Spec('tokenizer', (8, 8), latent=LatentSpec(16, (2, 2)))) == (
        '8 x 8 pixels, latents of 16 channels in 2 x 2 cells'
    )
    assert str(Spec('model')) == 'of unknown sizes'


IMAGES = {'type': 'VQDatasetRegistry.FolderDataset', 'split': 'train', 'transform': {'type': 'none', 'image_size': 64}}


@pytest.mark.parametrize(
    ('config', 'kind', 'image', 'on'),
    [
        ({'trainer': {'model': {'tokenizer': {}}, 'dataset': IMAGES}}, 'tokenizer', (64, 64), 'FolderDataset'),
        ({'trainer': {'model': {'tokenizer': {'frozen': {}}}, 'dataset': IMAGES}}, 'decoder', (64, 64), 'FolderDataset'),
        (
            {'trainer': {'model': {'generator': {}, 'tokenizer': {}}, 'dataset': {'type': 'TokenDataset', 'source': IMAGES}}},
            'generator',
            (64, 64),
            'FolderDataset',
        ),
        (
            {'trainer': {'model': {'backbone': {}, 'classes': 10}, 'dataset': {'type': 'DigitsDataset', 'image_size': 8}}},
            'classifier',
            (8, 8),
            'DigitsDataset',
        ),
        ({'validator': {'dataset': {'type': 'ImagesDataset', 'source': 'a.npz'}}}, 'model', None, None),
        ({}, 'model', None, None),
    ],
)
def test_older_runs_get_one_from_their_config(
    config: dict[str, Any], kind: str, image: tuple[int, int] | None, on: str | None
) -> None:
    found = guess(config)
    assert (found.kind, found.image, found.trained_on.get('dataset')) == (kind, image, on)
    assert loads(json.dumps(found.as_json()), 'x') == found
    assert kind != 'classifier' or found.trained_on['classes'] == 10
