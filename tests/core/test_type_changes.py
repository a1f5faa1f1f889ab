"""A part whose type is changed without ``_delete_``: the error names the key, because the settings of the other type stay."""

from __future__ import annotations

import pytest

from vq.assembly.compose import checked, compose
from vq.core import type_changes
from vq.core.errors import ConfigError

CHILD = """
_base_ = ['configs/digits/vq_ema.py']
trainer = dict(model=dict(tokenizer=dict(quantizer=dict({delete}type='FiniteScalarQuantizer', levels=[8, 5, 5]))))
"""


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """The record is of the process: a test sees only changes of its own."""
    monkeypatch.setattr(type_changes, '_before', {})


def test_a_changed_type_without_delete(tmp_path):
    file = tmp_path / 'child.py'
    file.write_text(CHILD.format(delete=''))
    with pytest.raises(ConfigError) as error:
        checked(compose(str(file), {}, {}), 'trainer')
    said = "trainer.model.tokenizer.quantizer: FiniteScalarQuantizer has no parameter 'commitment_weight', 'update', "
    assert error.value.message.startswith(said)
    assert "Replace it whole: quantizer=dict(_delete_=True, type='FiniteScalarQuantizer', ...)" in error.value.hint
    assert '(VectorQuantizer before)' in error.value.hint
    file.write_text(CHILD.format(delete='_delete_=True, '))
    assert checked(compose(str(file), {}, {}), 'trainer').model.tokenizer.quantizer.levels == [8, 5, 5]


def test_a_type_that_an_override_changes():
    path = '.trainer.model.tokenizer.quantizer'
    with pytest.raises(ConfigError) as error:
        checked(compose('digits/vq_ema.py', {}, {f'{path}.type': 'FiniteScalarQuantizer'}), 'trainer')
    whole = f'\'{path}:dict(type="FiniteScalarQuantizer", ...)\' on the command line'
    assert whole in str(error.value)
    replaced = compose('digits/vq_ema.py', {}, {path: {'type': 'FiniteScalarQuantizer', 'levels': [8, 5, 5]}})
    assert checked(replaced, 'trainer').model.tokenizer.quantizer.levels == [8, 5, 5]


def test_a_misspelt_key_of_a_part_whose_type_stays():
    with pytest.raises(ConfigError) as error:
        checked(compose('digits/vq_ema.py', {}, {'.trainer.model.tokenizer.quantizer.codebok_size': 8}), 'trainer')
    assert "did you mean 'codebook_size'?" in error.value.message and '_delete_' not in error.value.hint
