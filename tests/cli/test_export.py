"""``tools/export_hugging_face.py``: transformers' Llama gives the logits of the generator, from the written folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vq.cli.export import export
from vq.core.conditions import Condition
from vq.core.errors import UserError
from vq.generators.autoregressive import Autoregressive
from vq.generators.networks.gpt2 import GPT2Network
from vq.generators.networks.llama import LlamaNetwork

CODES, CLASSES = 19, 5
SHAPE = (3, 4)
COUNT = 12


def generator_of(vocabulary: str, classes: int, label_drop: float, kv_heads: int | None, **network: Any) -> Autoregressive:
    torch.manual_seed(3)
    joint = classes + (label_drop > 0) if vocabulary == 'joint' else 0
    settings = dict(dim=24, depth=2, heads=3, kv_heads=kv_heads, ffn_dim=40, length=COUNT + 1, **network)
    generator = Autoregressive(
        LlamaNetwork(CODES + joint, **settings), SHAPE, (CODES,), classes, vocabulary, label_drop=label_drop
    )
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return generator.eval()


CASES = [
    ('joint', CLASSES, 0.1, None),
    ('joint', CLASSES, 0.0, 1),
    ('prefix', CLASSES, 0.1, 1),
    ('prefix', CLASSES, 0.0, None),
    ('prefix', 0, 0.0, None),
]


@pytest.mark.slow
@pytest.mark.parametrize(('vocabulary', 'classes', 'label_drop', 'kv_heads'), CASES)
def test_logits_are_those_of_the_generator(vocabulary, classes, label_drop, kv_heads, tmp_path):
    transformers = pytest.importorskip('transformers')
    generator = generator_of(vocabulary, classes, label_drop, kv_heads)
    about = export(generator, tmp_path / 'out')
    assert about == json.loads((tmp_path / 'out' / 'vq.json').read_text())
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / 'out').eval()
    tokens = torch.randint(CODES, (4, *SHAPE))
    category = torch.tensor([0, CLASSES - 1, 2, 1]) if classes else None
    start = category + about['classes'][0] if classes else torch.full((4,), about['start'])
    with torch.no_grad():
        ours = generator(tokens, None if category is None else Condition(category)).logits
        ids = torch.cat([start[:, None], about['first'] + tokens.flatten(1)[:, :-1]], dim=1)
        logits = theirs(ids).logits
    assert logits.shape == (4, COUNT, about['vocabulary'])
    torch.testing.assert_close(logits[..., about['first'] : about['first'] + CODES], ours, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('vocabulary', ['joint', 'prefix'])
def test_the_null_class_is_the_one_it_names(vocabulary, tmp_path):
    transformers = pytest.importorskip('transformers')
    generator = generator_of(vocabulary, CLASSES, 0.1, None)
    about = export(generator, tmp_path / 'out')
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / 'out').eval()
    tokens = torch.randint(CODES, (1, *SHAPE))
    with torch.no_grad():
        logits = theirs(torch.tensor([[about['null_class']]])).logits[0, 0]
        ours = generator(tokens, None).logits[0, 0]
    torch.testing.assert_close(logits[about['first'] : about['first'] + CODES], ours, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('vocabulary', ['joint', 'prefix'])
def test_generate_draws_image_tokens_only(vocabulary, tmp_path):
    """With the written settings alone: as many tokens as an image has, and greedy tokens equal ours."""
    transformers = pytest.importorskip('transformers')
    generator = generator_of(vocabulary, CLASSES, 0.1, None)
    about = export(generator, tmp_path / 'out')
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / 'out').eval()
    start = torch.arange(CLASSES)[:, None] + about['classes'][0]
    drawn = theirs.generate(start, attention_mask=torch.ones_like(start))[:, 1:] - about['first']
    assert drawn.shape == (CLASSES, COUNT) and drawn.min() >= 0 and drawn.max() < CODES
    greedy = theirs.generate(start, attention_mask=torch.ones_like(start), do_sample=False)[:, 1:] - about['first']
    tokens = torch.zeros(CLASSES, COUNT, dtype=torch.int64)
    with torch.no_grad():
        for position in range(COUNT):
            logits = generator(tokens.view(-1, *SHAPE), Condition(torch.arange(CLASSES))).logits
            tokens[:, position] = logits[:, position].argmax(-1)
    assert torch.equal(greedy, tokens)


def test_what_has_no_llama_layout_is_refused(tmp_path):
    grid = Autoregressive(LlamaNetwork(CODES, 24, 1, 3, grid=SHAPE, prefix=1), SHAPE, (CODES,), CLASSES)
    with pytest.raises(UserError, match='has two-dimensional positions') as caught:
        export(grid, tmp_path / 'out')
    assert 'grid=None' in caught.value.hint
    with pytest.raises(UserError, match='a prefix without positions'):
        export(generator_of('prefix', CLASSES, 0.1, None, prefix=1), tmp_path / 'out')
    other = Autoregressive(GPT2Network(CODES, 24, 1, 3, COUNT), SHAPE, (CODES,), CLASSES)
    with pytest.raises(UserError, match='GPT2Network has no Hugging Face Llama layout'):
        export(other, tmp_path / 'out')
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_stays(tmp_path: Path):
    (tmp_path / 'mine.txt').write_text('kept')
    with pytest.raises(UserError, match='already exists'):
        export(generator_of('prefix', CLASSES, 0.1, None), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']
