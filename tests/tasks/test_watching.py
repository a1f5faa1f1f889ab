"""Drawing that is watched, and the settings that a task says it has: for each kind of task that draws."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.shipped import composed
from vq.core.config import plain
from vq.core.drawing import Wanted
from vq.core.errors import UserError
from vq.core.registry import find_item
from vq.data.inputs import Intake
from vq.interfaces.conditions import Asked
from vq.io.layouts import layouts_in
from vq.registries import VQTaskRegistry
from vq.tasks.loaded import LoadedGenerator

CONFIGS = [  # of each loop that draws
    'digits/ar.py',
    'digits/maskgit.py',
    'mar/digits.py',
    'mar/digits_debt.py',
    'diffusion/digits_pixels.py',
    'layout/digits.py',
]
OTHERS = {'sampler': 'Euler', 'cfg_schedule': 'linear', 'greedy': True, 'top_k': 3, 'steps': 3, 'num_iter': 3, 'history': 2}


def model_of(config: str) -> dict[str, Any]:
    found = composed(config)
    model: dict[str, Any] = plain((found.get('validator') or {}).get('model') or found['trainer']['model'])
    return copy.deepcopy(model)


@pytest.mark.parametrize('config', CONFIGS)
def test_a_watched_drawing_is_the_same_and_tells_each_step(config: str) -> None:
    torch.manual_seed(0)
    task: Any = VQTaskRegistry.build(model_of(config), 'model').eval()
    device, told = torch.device('cpu'), []
    layout = layouts_in({'boxes': [[2, 2, 9, 9]], 'categories': [1]}, 'a test') if task.asks == 'layout' else None
    condition = task.condition(Asked(layout=layout), [0, 1], device)

    def watch(*words: Any) -> None:
        told.append(words)

    with torch.no_grad():
        plainly, watched = (task.draw(Wanted([0, 1], 7, condition, watch=look)) for look in (None, watch))
        assert torch.equal(plainly.images(), watched.images())
        assert [done for done, _, _ in told] == [*range(1, len(told) + 1)] and len(told) > 1
        assert {steps for _, steps, _ in told} == {len(told)}
        if (shown := told[-1][2]) is not None:
            assert torch.equal(shown(), watched.images()), 'the last state is the image'


@pytest.mark.parametrize('config', CONFIGS)
def test_what_a_watcher_raises_ends_the_drawing(config: str) -> None:
    task: Any = VQTaskRegistry.build(model_of(config), 'model').eval()
    steps = []

    def stop(share: float, _: object) -> None:
        steps.append(share)
        raise KeyboardInterrupt

    loaded = LoadedGenerator(task, torch.device('cpu'), 'a test', Intake((8, 8)))
    with pytest.raises(KeyboardInterrupt):
        loaded.sample(count=3, watch=stop)
    assert len(steps) == 1 and 0 < steps[0] < 1


def test_shares_go_on_over_batches() -> None:
    task: Any = VQTaskRegistry.build(model_of('digits/ar.py'), 'model').eval()
    loaded, shares = LoadedGenerator(task, torch.device('cpu'), 'a test', Intake((8, 8), batch_size=2)), []
    loaded.sample(count=3, watch=lambda share, _: shares.append(share))
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)
    steps = len(shares) // 2
    assert shares[steps - 1] == pytest.approx(2 / 3), 'two of three images'


@pytest.mark.parametrize('config', CONFIGS)
def test_settings_are_those_that_the_command_takes(config: str) -> None:
    """Each setting with its own value, and with another one; and none beside these."""
    model = model_of(config)
    kind: Any = find_item(VQTaskRegistry, model['type'], 'model')[1]
    settings = kind.settings(model)
    assert 'guidance' in settings
    for name, (value, choices) in settings.items():
        other = choices[-1] if choices else OTHERS.get(name, 0.5)
        for one in (value, other):
            if one is not None and one is not False:
                kind.set_drawing(copy.deepcopy(model), {name: one})
        if name not in ('history', 'greedy', 'top_k', 'top_p', 'min_p'):
            assert value is None or kind.settings(changed(kind, model, {name: other}))[name].value == other
    for name in {*OTHERS, 'temperature', 'top_p'} - set(settings):
        with pytest.raises(UserError, match=name):
            kind.set_drawing(copy.deepcopy(model), {name: OTHERS.get(name, 0.5)})


def changed(kind: Any, model: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(model)
    kind.set_drawing(found, settings)
    return found


def test_a_task_without_a_condition_has_no_guidance() -> None:
    model = model_of('diffusion/digits_pixels.py') | {'conditioner': None}
    kind: Any = find_item(VQTaskRegistry, model['type'], 'model')[1]
    assert 'guidance' not in kind.settings(model)
