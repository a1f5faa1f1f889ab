"""Pictures during training at the steps and of the classes that are asked for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from tests.tasks.test_latent_modeling import task
from vq.assembly.compose import compose
from vq.core.errors import ConfigError
from vq.runners.callbacks.generations import GenerationsCallback
from vq.runners.journal import Journal
from vq.strategies.base import BaseStrategy

STEPS = range(1, 10)


def drawn_at(folder: Path, callback: GenerationsCallback) -> dict[int, list[int]]:
    """Step -> the classes that were drawn there, of nine steps."""
    model = task(num_iter=1)
    found: dict[int, list[int]] = {}
    runner: Any = SimpleNamespace(
        model=model,
        iters=9,
        work_dir=folder,
        callbacks={},
        strategy=BaseStrategy('cpu'),
        journal=Journal(folder / 'log.jsonl'),
    )
    runner.strategy.start()
    runner.context = SimpleNamespace(seed=1)
    plain = model.condition

    def condition(asked: Any, places: Any, device: torch.device) -> Any:
        found[runner.step] = list(asked.classes)
        return plain(asked, places, device)

    model.condition = condition  # type: ignore[method-assign]
    callback.bind(runner)
    for runner.step in STEPS:
        callback.inspect()
    return found


@pytest.mark.parametrize(('interval', 'steps'), [(4, [4, 8, 9]), ((2, 3, 7), [2, 3, 7, 9])])
def test_steps_are_an_interval_or_a_list(interval: Any, steps: list[int], tmp_path: Path) -> None:
    found = drawn_at(tmp_path, GenerationsCallback(interval, each=1, classes=1))
    assert [*found] == steps and {path.name for path in (tmp_path / 'pictures').iterdir()} == {
        f'iter_{step}_generated.png' for step in steps
    }


def test_classes_are_the_first_or_those_that_are_named(tmp_path: Path) -> None:
    assert drawn_at(tmp_path, GenerationsCallback(9, each=2, classes=2)) == {9: [0, 0, 1, 1]}
    assert drawn_at(tmp_path, GenerationsCallback(9, each=2, classes=(3, 1, 0))) == {9: [3, 3, 1, 1, 0, 0]}
    width, height = Image.open(tmp_path / 'pictures/iter_9_generated.png').size
    assert height > width, 'a row for each class'


@pytest.mark.parametrize('settings', [dict(interval=()), dict(interval=(0, 3)), dict(classes=()), dict(classes=(-1,))])
def test_what_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match='GenerationsCallback has'):
        GenerationsCallback(**settings)


def test_classes_that_the_model_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='has the classes 3, 4, and the model 4'):
        drawn_at(tmp_path, GenerationsCallback(classes=(3, 4)))


@pytest.mark.parametrize('config', ['energy/digits.py', 'mar/digits.py', 'digits/ar.py'])
def test_options_of_every_generator(config: str) -> None:
    options: dict[str, Any] = dict(pictures_every=(10, 20), validate=30, watch=40)
    callbacks = compose(config, options, {}, tiny=False).trainer.callbacks
    assert tuple(callbacks['generations'].interval) == (10, 20)
    assert callbacks['validate'] == {'type': 'ValidateCallback', 'interval': 30}
    assert callbacks['watch'] == {'type': 'WatchCallback', 'interval': 40}
    assert compose(config, options, {}, tiny=True).trainer.callbacks['validate'].limit == 8


@pytest.mark.parametrize('config', ['energy/digits.py', 'mar/digits.py'])
def test_classes_are_an_option_of_those_that_learn_latents(config: str) -> None:
    callbacks = compose(config, dict(pictures_of=(7, 2)), {}, tiny=False).trainer.callbacks
    assert tuple(callbacks['generations'].classes) == (7, 2)
