"""A frozen part in a task that does nothing for it: the base class keeps it frozen, and checkpoints know its weights."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.runners.support import build_trainer, quiet
from vq.core.errors import UserError
from vq.core.records import Batch, Losses, Outputs, to_float
from vq.interfaces import Loss, Pretrained, Task
from vq.io import checkpoints
from vq.io.runs import find
from vq.io.weights import load_model_from
from vq.runners.resuming import Resume


class Eyes(nn.Module, Pretrained):
    """image -> (B, 4). Nothing here says how a frozen part behaves but ``frozen``, which is the default."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.layers(image).mean((2, 3))
        return found

    def pretrained_files(self) -> list[Path]:
        return [self.file]

    def load_pretrained(self) -> None:
        self.layers.load_state_dict(load_file(self.file))


class Measure(Loss, Pretrained):
    """A loss with a network of its own."""

    weight = 1.0

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.eyes = Eyes(file)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean()

    def pretrained_files(self) -> list[Path]:
        return self.eyes.pretrained_files()

    def load_pretrained(self) -> None:
        self.eyes.load_pretrained()


class Brain(nn.Module):
    """Owns the frozen part: an optimizer gets the parameters of both."""

    def __init__(self, eyes: nn.Module) -> None:
        super().__init__()
        self.eyes, self.head = eyes, nn.Linear(4, 1)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.head(self.eyes(image))
        return found


class Brightness(Task):
    """A user's task, without any override about frozen parts."""

    def __init__(self, eyes: nn.Module, measure: Path) -> None:
        super().__init__()
        self.brain = Brain(eyes)
        self.losses = nn.ModuleDict({'measure': Measure(measure)})
        self.outputs = Outputs()
        self.seen: list[Tensor] = []

    def roots(self) -> dict[str, nn.Module]:
        return {'tokenizer': self.brain}

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        image = to_float(batch.image)
        self.seen.append(self.brain.eyes(image[:1]))
        losses = Losses()
        losses.add('measure', self.losses['measure'](roots['tokenizer'](image), image.mean((1, 2, 3))[:, None]))
        yield 'tokenizer', losses


def weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    state = {name: torch.randn_like(value.float()).to(value.dtype) for name, value in Eyes(path).layers.state_dict().items()}
    save_file({name: value.abs() for name, value in state.items()}, path)
    return path


def make(folder: Path, eyes: str = 'eyes', measure: str = 'measure') -> Brightness:
    part = Eyes(folder / eyes)
    task = Brightness(part, folder / measure)
    for found in (part, task.losses['measure']):
        found.load_pretrained()
    return task


def trainer_of(task: Task, folder: Path, *callbacks: dict[str, Any], iters: int = 3) -> Any:
    trainer = build_trainer(folder, dict(iters=iters), quiet(*callbacks))
    trainer.model = task
    return trainer


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Brightness, dict[str, Tensor]]:
    """A folder with a run of three steps, the task after it, and the state of its frozen part before."""
    folder = tmp_path_factory.mktemp('frozen')
    for seed, name in enumerate(('eyes', 'measure', 'other')):
        weights(folder / name, seed)
    task = make(folder)
    before = {name: value.clone() for name, value in task.brain.eyes.state_dict().items()}
    trainer_of(task, folder, dict(type='EMACallback'), dict(type='CheckpointCallback')).run()
    return folder, task, before


def test_it_stays_as_it_is_while_the_task_trains(trained: tuple[Path, Brightness, dict[str, Tensor]]) -> None:
    _, task, before = trained
    eyes, after = task.brain.eyes, task.brain.eyes.state_dict()
    assert task.training and task.brain.head.training and task.brain.training
    assert not any(part.training for part in [*eyes.modules(), *task.losses['measure'].modules()])
    assert not any(value.requires_grad or value.grad is not None for value in eyes.parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items()), 'statistics of the batch norm moved'
    assert len(task.seen) == 3 and not any(value.requires_grad for value in task.seen)
    task.eval().train()
    assert not eyes.training and task.brain.head.training


def test_no_optimizer_has_it_and_no_checkpoint(trained: tuple[Path, Brightness, dict[str, Tensor]]) -> None:
    folder, task, _ = trained
    place = folder / 'run/checkpoints/iter_3'
    for name in ('model', 'ema'):
        assert sorted(load_file(place / f'{name}.safetensors')) == ['brain.head.bias', 'brain.head.weight']
    state = torch.load(place / 'training.pt', weights_only=True)['optimizers']['tokenizer']
    assert len(state['state']) == len([*task.brain.head.parameters()])
    meta = json.loads((place / 'meta.json').read_text())
    files = {str(folder / name) for name in ('eyes', 'measure')}
    assert set(meta['frozen']) == files and all(len(digest) == 64 for digest in meta['frozen'].values())
    assert meta['frozen_parts']['brain.eyes'] == [str(folder / 'eyes')]
    assert find(str(folder / 'run')).frozen == (meta['frozen'], meta['frozen_parts'])


def test_its_own_weights_are_taken_wherever_they_stand(trained: tuple[Path, Brightness, dict[str, Tensor]]) -> None:
    folder, task, _ = trained
    (folder / 'moved').write_bytes((folder / 'eyes').read_bytes())
    again = make(folder, 'moved')
    report = load_model_from(again, [folder / 'run'])
    assert not report.missing and len(report.loaded) == 2 and len(report.frozen) > 5
    image = to_float(torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8))
    state = load_file(folder / 'run/checkpoints/iter_3/ema.safetensors')
    expected = task.brain.eyes(image) @ state['brain.head.weight'].T + state['brain.head.bias']
    torch.testing.assert_close(again.brain(image), expected)


@pytest.mark.parametrize('how', ['loaded', 'resumed'])
def test_other_weights_are_refused(trained: tuple[Path, Brightness, dict[str, Tensor]], how: str, tmp_path: Path) -> None:
    folder, _, _ = trained
    words = r"with other weights of the frozen part 'brain\.eyes': .*eyes \(\w{12}\) then, .*other \(\w{12}\) now"
    task = make(folder, 'other')
    before = {name: value.clone() for name, value in task.state_dict().items()}
    place = folder / 'run/checkpoints/iter_3'
    trainer = trainer_of(task, tmp_path, iters=4)
    trainer.resumed = Resume(place, checkpoints.load(place))
    load = trainer.setup if how == 'resumed' else functools.partial(load_model_from, task, [folder / 'run'])
    with pytest.raises(UserError, match=words):
        load()
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


def test_a_checkpoint_without_the_names_of_parts_is_compared_by_path(
    trained: tuple[Path, Brightness, dict[str, Tensor]], tmp_path: Path
) -> None:
    folder, _, _ = trained
    checkpoint = checkpoints.load(folder / 'run/checkpoints/iter_3')
    checkpoint.frozen_parts, checkpoint.frozen = {}, {str(folder / 'eyes'): '0' * 64}
    place = checkpoints.save(tmp_path, checkpoint)
    with pytest.raises(UserError, match=r"of the frozen part 'brain\.eyes'"):
        load_model_from(make(folder), [place])
    load_model_from(make(folder, 'other'), [place])  # nothing is known of this path


def test_a_network_that_only_measures_may_be_another(trained: tuple[Path, Brightness, dict[str, Tensor]]) -> None:
    folder, _, _ = trained
    assert not load_model_from(make(folder, measure='other'), [folder / 'run']).missing


def test_what_is_mounted_later_or_deep_is_frozen_too(tmp_path: Path) -> None:
    task = make_empty()
    task.later = nn.ModuleList([nn.Sequential(Eyes(tmp_path / 'none'))])
    task.add_module('added', Eyes(tmp_path / 'none'))
    task.plain.deep = Eyes(tmp_path / 'none')  # not seen by the task before training begins
    task.train()
    assert set(task.frozen_parts()) == {'later.0.0', 'added', 'plain.deep'}
    assert set(task.frozen_prefixes()) == {'later.0.0.', 'added.', 'plain.deep.'}
    for part in task.frozen_parts().values():
        assert not any(value.requires_grad for value in part.parameters()) and not part.layers[2].training  # type: ignore[attr-defined]
    assert task.plain.weight.requires_grad


def test_a_pretrained_part_that_is_not_frozen_trains(tmp_path: Path) -> None:
    class Learning(Eyes):
        frozen = False

    task = make_empty()
    task.eyes = Learning(tmp_path / 'none')
    assert not task.frozen_parts() and task.eyes.training and all(value.requires_grad for value in task.eyes.parameters())
    assert any(name.startswith('eyes.') for name in checkpoints.model_state(task))


class Keeping(Eyes):
    """Keeps a tensor of its own in checkpoints, beside a module and a parameter that stay out."""

    kept = ('mark',)

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.register_buffer('mark', torch.zeros(2))
        self.extra = nn.Parameter(torch.zeros(2))


def test_a_part_can_keep_a_tensor_in_checkpoints(tmp_path: Path) -> None:
    task = make_empty()
    task.eyes = Keeping(tmp_path / 'none')
    assert set(task.frozen_prefixes()) == {'eyes.layers.', 'eyes.extra'}
    assert sorted(checkpoints.model_state(task)) == ['eyes.mark', 'plain.bias', 'plain.weight']


def make_empty() -> Any:
    task = Task()
    task.plain = nn.Linear(1, 1)
    return task
