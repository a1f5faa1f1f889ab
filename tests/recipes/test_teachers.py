"""Teachers by name: what the table says of a network, against the network."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from vq.core.config import PyConfig
from vq.core.recipe import merge
from vq.io.published.catalog import owner_of
from vq.recipes.teachers import TEACHERS, TINY_WIDTH, Known, Name, _digits
from vq.registries import VQTeacherRegistry

KNOWN: dict[str, Known] = {**TEACHERS, 'digits': _digits('ic/digits')}
MARGIN = 0.1


def build(part: dict[str, Any]) -> Any:
    with torch.device('meta'):
        try:
            return VQTeacherRegistry.build(PyConfig(part), 'teacher')
        except Exception as error:
            if 'which is not installed' in str(error):
                pytest.skip(str(error))
            raise


def test_the_option_has_every_row() -> None:
    assert set(get_args(Name)) == set(KNOWN)


@pytest.mark.slow
@pytest.mark.parametrize('name', KNOWN)
def test_a_row_says_what_the_network_is(name: str) -> None:
    known = KNOWN[name]
    teacher = build(known.part)
    assert (teacher.width, teacher.depth) == (known.width, known.depth)
    assert known.side % teacher.patch_size == 0
    for layers in [known.target, 'last', *known.named]:
        assert teacher.channels(layers) == known.channels(layers)
    if name != 'digits':
        assert teacher.channels([0, -1]) == known.channels([0, -1]) == 2 * known.width
        assert owner_of(known.part.get('file', teacher.file)) is not None, 'no entry of prepare_checkpoints fetches its file'


@pytest.mark.slow
@pytest.mark.parametrize('name', KNOWN)
def test_its_tiny_form_is_small_and_as_wide_as_all_others(name: str) -> None:
    known = KNOWN[name]
    teacher = build(merge(known.part, known.small(known.target)))
    assert known.tiny_width == (16 if name == 'digits' else TINY_WIDTH), 'digits: as the tiny form of ic/digits.py'
    assert teacher.channels(known.target) == known.tiny_width and sum(value.numel() for value in teacher.parameters()) < 2e5
    several = build(merge(known.part, known.small('sum_of_last_2')))
    assert several.depth == known.depth
