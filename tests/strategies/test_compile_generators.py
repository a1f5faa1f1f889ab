"""torch.compile of a generator and of what lies in a frozen tokenizer: compiled at all, whole, and equal to eager."""

from __future__ import annotations

import pytest
import torch

from tests.shipped import composed
from tests.strategies.speed_runs import assert_steps_agree, make_batch, one_step, outline, placed, shapes
from vq.core.records import Batch
from vq.interfaces import Task
from vq.registries import VQRunnerRegistry
from vq.strategies.compiling import CompileSettings, usual_parts
from vq.tasks.sequence_modeling.task import SequenceModeling

FROZEN = ('encoder', 'quantizer', 'decoder')


def generators() -> list[str]:
    """Shipped configs that train a generator of codes, one of each outline."""
    found: dict[object, str] = {}
    for entry in shapes('generator'):
        if composed(entry).trainer.model.type != 'SequenceModeling':
            continue
        found.setdefault(outline(composed(entry).trainer.model.generator), entry)
    return sorted(found.values())


def build(entry: str) -> Task:
    torch.manual_seed(0)
    return VQRunnerRegistry.build(composed(entry).trainer, 'trainer').model


def make_tokens(task: SequenceModeling, count: int = 4) -> Batch:
    generator = task.generator
    below = min(generator.tokens.codebooks)
    tokens = torch.randint(0, below, (count, *generator.tokens.shape), generator=torch.Generator().manual_seed(1))
    keys = torch.arange(count)
    return Batch(torch.zeros(count, 0), [str(key) for key in range(count)], keys, category=keys, tokens=tokens)


@pytest.fixture(autouse=True)
def _forget_programs():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize('entry', generators())
def test_every_shipped_generator_compiles_whole_and_equals_eager(entry: str) -> None:
    ours, theirs = build(entry), build(entry)
    assert 'generator.network' in usual_parts(ours)
    found = one_step(*placed(ours, compile=CompileSettings('aot_eager', fullgraph=True)), batch=make_tokens(ours))
    assert_steps_agree(found, one_step(*placed(theirs), batch=make_tokens(theirs)), 1e-5)


@pytest.mark.slow
def test_the_network_of_continuous_tokens_compiles_whole_and_equals_eager() -> None:
    ours, theirs = build('mar/digits.py'), build('mar/digits.py')
    settings = CompileSettings('aot_eager', parts=('generator.network',), fullgraph=True)
    assert 'generator.network' in usual_parts(ours)
    images = make_batch()
    images.category = torch.arange(len(images.id))
    assert_steps_agree(one_step(*placed(ours, compile=settings), batch=images), one_step(*placed(theirs), batch=images), 1e-5)


def test_a_network_with_a_second_derivative_is_not_compiled() -> None:
    assert not [name for name in usual_parts(build('mar/digits_debt.py')) if name.startswith('generator')]


@pytest.mark.slow
def test_images_are_tokenised_on_the_fly_by_compiled_networks() -> None:
    task, expected = build('digits/ar.py'), build('digits/ar.py')
    parts = usual_parts(task)
    assert list(parts) == ['generator.network', *(f'tokenizer.tokenizer.{name}' for name in FROZEN)]
    roots, strategy = placed(task, compile=CompileSettings('aot_eager', fullgraph=True))[1:]
    batch = make_batch(32)
    batch.category = torch.arange(4)
    with torch._dynamo.config.patch(error_on_recompile=True):  # type: ignore[no-untyped-call]
        for step in (1, 2):
            one_step(task, roots, strategy, step, batch)
    assert torch.equal(task.outputs.tokens, expected.tokens_of(batch))
    counted = torch._dynamo.utils.counters['stats']['unique_graphs']
    assert counted == 3, 'the generator, the encoder and the quantizer'


@pytest.mark.slow
def test_a_decoder_on_a_frozen_tokenizer_compiles_both() -> None:
    ours, theirs = build('digits/decoder.py'), build('digits/decoder.py')
    assert list(usual_parts(ours))[:3] == [
        'tokenizer.frozen.tokenizer.encoder',
        'tokenizer.frozen.tokenizer.quantizer',
        'tokenizer.decoder',
    ]
    found = one_step(*placed(ours, compile=CompileSettings('aot_eager', fullgraph=True)))
    assert_steps_agree(found, one_step(*placed(theirs)), 1e-5)
