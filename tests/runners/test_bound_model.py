"""Requirements of runners and callbacks for a model: codebook metrics count its codes, sampling needs a generator."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.shipped import composed
from vq.assembly.compose import checked
from vq.core.bindings import Binder, filled
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.meta import on_meta
from vq.registries import VQRunnerRegistry
from vq.runners.callbacks.generations import GenerationsCallback
from vq.tasks.sequence_modeling.task import SequenceModeling

METRICS = ('codebook', 'window')


def validator_of(entry, **sizes):
    """The validator of an entry in its tiny form, with only these metrics; ``sizes``: code sizes in the config."""
    config = composed(entry)
    metrics = {
        'codebook': {'type': 'CodebookMetric'},
        'window': {'type': 'WindowedCodebookMetric'},
        'l1': {'type': 'L1Metric'},
    }
    for name, size in sizes.items():
        metrics[name]['codebook_size'] = size
    config['validator']['metrics'] = metrics
    found = checked(PyConfig(config), 'validator')
    with on_meta():
        return VQRunnerRegistry.build(found, 'validator')


CODES = {
    'digits/vq_ema.py': (256,),
    'digits/residual.py': (16, 16),
    'digits/ar.py': (256,),
    'digits/ar_residual.py': (16,),
    'digits/decoder.py': (256,),
    'digits/vqgan.py': (256,),
}


@pytest.mark.parametrize('entry', CODES)
def test_metrics_count_the_codes_of_the_model(entry):
    metrics = validator_of(entry).metrics
    assert [metrics[name].sizes for name in METRICS] == [CODES[entry]] * 2
    assert validator_of(entry, codebook=None).metrics['codebook'].sizes == CODES[entry]


@pytest.mark.parametrize('entry', CODES)
def test_equal_sizes_are_accepted_and_others_refused(entry):
    sizes = list(CODES[entry])
    assert validator_of(entry, codebook=sizes, window=sizes).metrics['codebook'].sizes == tuple(sizes)
    with pytest.raises(ConfigError, match=r'^validator\.metrics\.window\.codebook_size is 512 in the config, and .* has'):
        validator_of(entry, window=512)


def test_codes_of_several_codebooks_may_be_counted_together_or_each_for_itself():
    assert validator_of('digits/residual.py', codebook=16).metrics['codebook'].sizes == (16,)
    assert validator_of('digits/ar_residual.py', codebook=[16] * 2).metrics['codebook'].sizes == (16, 16)
    with pytest.raises(ConfigError, match='codebook_size is'):
        validator_of('digits/residual.py', codebook=[16] * 3)


@pytest.mark.parametrize('size', [None, 256])
def test_continuous_tokenizers_have_no_codes_to_count(size):
    with pytest.raises(ConfigError, match=r'^validator\.metrics\.codebook\.codebook_size: KLAutoencoder is continuous'):
        validator_of('digits/kl.py', codebook=size)


def test_models_that_say_nothing_of_codes():
    with pytest.raises(ConfigError, match=r"'counted_codes' of validator\.model"):
        validator_of('ic/digits.py')
    assert validator_of('ic/digits.py', codebook=7, window=8).metrics['window'].sizes == (8,)


def test_a_validator_around_a_built_model_asks_that_one():
    config = composed('digits/vq_ema.py')
    metrics = {'codebook': {'type': 'CodebookMetric'}}
    found = {**checked(config, 'validator'), 'metrics': metrics, 'model': SimpleNamespace(counted_codes=99)}
    assert VQRunnerRegistry.build(found, 'validator').metrics['codebook'].sizes == (99,)


def test_without_a_model_metrics_keep_their_numbers():
    """ImagesValidator takes no model."""
    owner = VQRunnerRegistry.parse('ImagesValidator')[1]
    values = {'metrics': {'codebook': {'type': 'CodebookMetric'}}}
    assert filled(owner, values) == set()
    Binder(VQRunnerRegistry.root(), owner, 'validator').fill('metrics', values)
    assert values == {'metrics': {'codebook': {'type': 'CodebookMetric'}}}


# drawing


def test_pictures_of_generations_are_refused_before_the_first_step():
    with pytest.raises(ConfigError, match='Linear draws nothing'):
        GenerationsCallback().bind(SimpleNamespace(model=torch.nn.Linear(1, 1)))
    generator = SimpleNamespace(model=SequenceModeling.__new__(SequenceModeling))
    callback = GenerationsCallback()
    callback.bind(generator)
    assert callback.runner is generator
