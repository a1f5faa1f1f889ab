"""Diffusion on texts and on layouts, by parts that a user keeps outside of the repository: training, samples, refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vq
from tests.runners.support import commands_here, own_parts
from tests.tasks.test_diffusion import batch, task
from vq.cli.sample import main as sample
from vq.cli.train import main as train
from vq.core.conditions import Condition
from vq.core.errors import ConfigError, UserError
from vq.interfaces.conditions import Asked, Conditioned, Conditioner
from vq.io.layouts import read_layouts
from vq.io.shards import ShardSet
from vq.tasks.asked import condition_of

TOY = Path(__file__).parent / 'toys/worded.py'
CONFIG = """
from vq.recipes import digits_diffusion

_short = dict(pixels=True, path='flow', sampler='Euler', image_size=8, iters=2, steps=2, evaluate=None, batch_size=8)
_base_ = [digits_diffusion(_kwargs_, **_short)]
custom_imports = ['worded']
trainer = dict(dataset=dict(type='WordedDigits'), optimizers=dict(denoiser=dict(schedule=None)))
validator = dict(dataset=dict(type='WordedDigits'))
"""
READER, WORDS = 'denoiser={"type": "Reader"}', 'conditioner={"type": "WordConditioner"}'
BOXES = 'conditioner={"type": "ToyBoxConditioner", "side": 8}'
TEXTS = '.trainer.callbacks.generations.texts:("three","six seven")'


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on texts and one on layouts, and the folder that they are in."""
    home = tmp_path_factory.mktemp('worded')
    (home / 'worded.py').write_text(TOY.read_text())
    (home / 'words.py').write_text(CONFIG)
    with commands_here(dry=False), own_parts(home), pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.syspath_prepend(str(home))
        assert train(['words', 'words.py', '--trust', READER, WORDS, '--override', TEXTS]) == 0
        assert train(['boxes', 'words.py', '--trust', READER, BOXES]) == 0
        yield home


def pictures(run: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(Path(f'work_dirs/{run}_sample/samples').iterdir())]


@pytest.mark.slow
def test_texts_reach_the_network(home: Path) -> None:
    assert sample(['words', '--trust', '--text', 'three', 'six seven', '--num-samples', '3', '--batch-size', '2']) == 0
    shards = ShardSet(home / 'work_dirs/words_sample/shards')
    assert shards.manifest.producer['text'] == ['three', 'six seven'] and 'category' not in shards.manifest.columns
    loaded, drawn = vq.load('words', trust=True), pictures('words')
    for mine, theirs in zip(loaded.sample(text=['three', 'six seven'], count=3, to='numpy'), drawn, strict=True):
        assert np.abs(mine.astype(int) - theirs.astype(int)).max() <= 1
    (other,) = loaded.sample(text='four', to='numpy')
    (none,) = loaded.sample(to='numpy')
    assert not np.array_equal(other, drawn[0]) and not np.array_equal(none, drawn[0]), 'the text says nothing'
    assert 'texts' in repr(loaded)
    assert (home / 'work_dirs/words/pictures/iter_2_generated.png').is_file()


@pytest.mark.slow
def test_layouts_reach_the_network(home: Path) -> None:
    rows = [{'boxes': [[0, 0, 8, 4]], 'categories': ['3']}, {'boxes': [[0, 0, 4, 8], [4, 4, 8, 8]], 'categories': [1, '7']}]
    (home / 'layouts.json').write_text(json.dumps(rows))
    assert sample(['boxes', '--trust', '--layout', 'layouts.json', '--num-samples', '3', '--guidance', '1']) == 0
    drawn, loaded = pictures('boxes'), vq.load('boxes', trust=True)
    layout = read_layouts(home / 'layouts.json', [*'0123456789'])
    for mine, theirs in zip(loaded.sample(layout=layout, count=3, guidance=1, to='numpy'), drawn, strict=True):
        assert np.abs(mine.astype(int) - theirs.astype(int)).max() <= 1
    (none,) = loaded.sample(guidance=1, to='numpy')
    changed = np.abs(none.astype(int) - drawn[0].astype(int)).sum((1, 2)) > 0
    assert changed[:4].any() and not changed[7:].any(), 'the upper half; two steps of two convolutions see no farther'


@pytest.mark.slow
def test_what_a_model_does_not_take_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ['--trust', '--num-samples', '2', '--overwrite']
    (home / 'one.json').write_text('{"boxes": [], "categories": []}')
    for given, words in (
        (['words', '--classes', '3'], 'classes are asked for, and this model takes texts'),
        (['words', '--layout', 'one.json'], 'layouts are asked for, and this model takes texts'),
        (['boxes', '--text', 'three'], 'texts are asked for, and this model takes layouts'),
    ):
        assert sample([*given, *how]) == 2
        assert words in capsys.readouterr().err
    assert train(['wrong', 'words.py', '--trust', WORDS, 'dim=16', 'depth=1', 'heads=2', 'patch=4']) == 2
    assert "WordConditioner gives conditions of the form 'sequence', which DiT does not take" in capsys.readouterr().err
    assert train(['wrong', 'words.py', '--trust', READER, '--override', TEXTS]) == 2
    assert 'GenerationsCallback has texts' in capsys.readouterr().err


class Fixed(Conditioner):
    def __init__(self, kind: Any, found: Conditioned) -> None:
        super().__init__()
        self.kind, self.found = kind, found  # type: ignore[misc]

    def forward(self, condition: Condition | None, rows: int) -> Conditioned:
        return self.found


@pytest.mark.parametrize(('kind', 'words'), [('text', 'gives none'), ('layout', 'gives neither boxes nor masks')])
def test_data_without_the_condition_are_refused(kind: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        task(conditioner=Fixed(kind, Conditioned(torch.zeros(3, 8)))).validation_step(batch())


def test_a_part_of_a_condition_is_never_left_unread() -> None:
    """A denoiser of vectors would ignore the maps beside them, and the images would not follow the layout."""
    both = Conditioned(torch.zeros(3, 8), maps=torch.zeros(3, 8, 8, 8))
    boxes = dataclasses.replace(batch(), boxes=torch.zeros(3, 1, 4))
    with pytest.raises(ConfigError, match="of the form 'maps', which Mixer does not take"):
        task(conditioner=Fixed('layout', both)).validation_step(boxes)


def test_entries_are_taken_in_turn() -> None:
    device = torch.device('cpu')
    found = condition_of(Asked(text=['a', 'b']), ('text',), 0, [4, 5, 6], device)
    assert found is not None and found.text == ['a', 'b', 'a']
    layout = Condition(boxes=torch.arange(8.0).view(2, 1, 4), boxes_mask=torch.tensor([[True], [False]]))
    found = condition_of(Asked(layout=layout), ('layout',), 0, [3, 4], device)
    assert found is not None and found.boxes_mask is not None and found.boxes is not None
    assert found.boxes_mask.tolist() == [[False], [True]] and found.boxes[0, 0, 0] == 4
    assert condition_of(Asked(), ('text',), 0, [0], device) is None
    with pytest.raises(UserError, match='no text is given'):
        condition_of(Asked(text=[]), ('text',), 0, [0], device)
