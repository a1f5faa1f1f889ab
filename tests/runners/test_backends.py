"""Other logs of a run: TensorBoard's event files read by TensorBoard itself, and the calls that Weights & Biases gets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runners.support import commands_here, said_by, write_config
from vq.assembly.compose import compose
from vq.cli import train
from vq.core import output
from vq.core.config import plain
from vq.runners.callbacks.backends import BackendsCallback
from vq.runners.histograms import measure
from vq.runners.journal import Journal, read

RUN = ('run', 'tiny.py')
PICTURES = ('.trainer.callbacks.pictures:' + repr({'type': 'ImageGridCallback', 'interval': 2}),)
OFTEN = ('--override', '.trainer.callbacks.log.interval:1', *PICTURES)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    with commands_here(dry=False):
        yield tmp_path


def events(folder: Path) -> Any:
    """What TensorBoard shows of a folder."""
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    found = accumulator.EventAccumulator(str(folder), size_guidance={'scalars': 0, 'images': 0, 'histograms': 0})
    found.Reload()
    return found


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(name)]


@pytest.mark.slow
def test_tensorboard_shows_the_journal_and_the_pictures_and_a_resume_goes_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = '.trainer.callbacks.evaluate:' + repr({'type': 'EvalCallback', 'interval': 2, 'limit': 8})
    said_by(capsys, train.main, *RUN, '--config-options', 'iters:6', 'save_every:4', *OFTEN, evaluate)
    folder = here / 'work_dirs/run/tensorboard'
    first = sorted(os.listdir(folder))
    said_by(
        capsys, train.main, *RUN, '--load-from', 'iter_4', '--config-options', 'iters:6', 'save_every:4', *OFTEN, evaluate
    )  # steps 5 and 6 again
    assert len(os.listdir(folder)) == 2 and set(first) < set(os.listdir(folder))
    train_lines, eval_lines = (read(here / 'work_dirs/run/log.jsonl', kind) for kind in ('train', 'eval'))
    for name in ('l2', 'total'):
        shown = curve(folder, f'train/{name}')
        assert [step for step, _ in shown] == [1, 2, 3, 4, 5, 6]  # none twice
        assert [value for _, value in shown] == pytest.approx([line[name] for line in train_lines])
    rates = [line['lr']['tokenizer'] for line in train_lines]
    assert [value for _, value in curve(folder, 'train/lr/tokenizer')] == pytest.approx(rates)
    assert len(curve(folder, 'train/timing/images_per_second')) == 6
    shown = curve(folder, 'eval/psnr')
    assert shown == [(line['step'], pytest.approx(line['psnr'])) for line in eval_lines]
    pictures = events(folder).Images('reconstruction')
    assert [picture.step for picture in pictures] == [2, 4, 6]
    assert all(picture.encoded_image_string.startswith(b'\x89PNG') for picture in pictures)


@pytest.mark.slow
def test_overwrite_sets_event_files_aside_with_the_log(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = here / 'work_dirs/run'
    said_by(capsys, train.main, *RUN, '--config-options', 'iters:4')
    (old,) = os.listdir(run / 'tensorboard')
    (run / 'tensorboard/notes.txt').write_text('mine')
    said_by(capsys, train.main, *RUN, '--config-options', 'iters:4', '--overwrite')
    (aside,) = run.glob('old_*')
    assert os.listdir(aside / 'tensorboard') == [old] and (aside / 'log.jsonl').is_file()
    assert len(list((run / 'tensorboard').glob('events.*'))) == 1 and (run / 'tensorboard/notes.txt').read_text() == 'mine'
    assert [step for step, _ in curve(run / 'tensorboard', 'train/total')] == [3, 4]


@pytest.mark.parametrize('asked', [None, [{'type': 'TensorboardVisBackend'}], [{'type': 'TensorBoard'}]])
def test_all_names_of_tensorboard_are_torchs_writer(asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('tensorboard')
    monkeypatch.setitem(sys.modules, 'mmengine', None)
    callback = opened(BackendsCallback(asked), tmp_path)
    callback.runner.journal.write(3, 'train', {'loss': 1.5, 'lr': {'generator': 0.1}, 'name': 'text'})
    callback.after_run()
    callback.runner.journal.write(4, 'train', {'loss': 2.5})  # of a callback that ends later
    assert curve(tmp_path / 'tensorboard', 'train/loss') == [(3, 1.5)]
    assert events(tmp_path / 'tensorboard').Tags()['scalars'] == ['train/loss', 'train/lr/generator']


def test_a_run_of_mmengines_back_end_goes_on_in_its_folder(tmp_path: Path) -> None:
    pytest.importorskip('tensorboard')
    (tmp_path / 'backends/tensorboard').mkdir(parents=True)
    opened(BackendsCallback([{'type': 'TensorboardVisBackend'}]), tmp_path).after_run()
    assert os.listdir(tmp_path / 'backends/tensorboard') and not (tmp_path / 'tensorboard').exists()


def test_a_full_disk_ends_the_log_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip('tensorboard')
    output.LOST.clear()
    callback = opened(BackendsCallback(), tmp_path)

    def full(step: int, values: object) -> None:
        raise OSError(28, 'No space left on device')

    callback.backends['TensorBoard'].scalars = full  # type: ignore[method-assign]
    callback.runner.journal.write(1, 'train', {'loss': 1.0})
    callback.runner.journal.write(2, 'train', {'loss': 1.0})
    callback.after_run()
    assert [line['step'] for line in read(tmp_path / 'log.jsonl')] == [1, 2]
    assert output.lost() == '1 line of TensorBoard (No space left on device)'
    output.LOST.clear()


def opened(callback: BackendsCallback, folder: Path, step: int = 0) -> Any:
    context = SimpleNamespace(name='exp/one', config_text='{"trainer": {"iters": 7}}')
    callback.bind(SimpleNamespace(work_dir=folder, step=step, journal=Journal(folder / 'log.jsonl'), context=context))
    callback.before_run()
    return callback


# Weights & Biases: a module of that name that records calls. test_wandb_offline.py has the real package.


class Recorder(ModuleType):
    def __init__(self) -> None:
        super().__init__('wandb')
        self.calls: list[tuple[str, Any]] = []
        self.Error = type('Error', (Exception,), {})
        self.refuses = False

    def init(self, **settings: Any) -> Any:
        self.calls.append(('init', settings))
        if self.refuses:
            raise self.Error('api_key not configured')
        run_id = settings.get('id', 'abc123')
        return SimpleNamespace(
            id=run_id,
            url=None,
            dir='files',
            log=lambda values, step: self.calls.append(('log', (step, values))),
            finish=lambda: self.calls.append(('finish', None)),
        )

    def Image(self, pixels: Any) -> Any:  # noqa: N802  the name of wandb's class
        return ('image', pixels.shape)

    def Histogram(self, np_histogram: Any) -> Any:  # noqa: N802
        return ('histogram', np_histogram)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, 'wandb', recorder)
    monkeypatch.setitem(sys.modules, 'mmengine', None)
    return recorder


@pytest.mark.parametrize('old', [False, True])
def test_wandb_gets_project_config_scalars_and_pictures(old: bool, wandb: Recorder, tmp_path: Path) -> None:
    settings = {'type': 'WandbVisBackend', 'init_kwargs': {'project': 'vq'}}
    callback = opened(BackendsCallback([settings]) if old else BackendsCallback([], wandb='vq'), tmp_path)
    callback.runner.journal.write(5, 'eval', {'psnr': 20.0})
    callback.runner.journal.picture(5, 'reconstruction', torch.zeros(3, 4, 6, dtype=torch.uint8))
    callback.after_run()
    (_, given), *others = wandb.calls
    assert given == {'dir': str(tmp_path), 'name': 'exp/one', 'config': {'trainer': {'iters': 7}}, 'project': 'vq'}
    assert others == [
        ('log', (5, {'eval/psnr': 20.0})),
        ('log', (5, {'reconstruction': ('image', (4, 6, 3))})),
        ('finish', None),
    ]


def test_wandb_gets_histograms_in_one_call(wandb: Recorder, tmp_path: Path) -> None:
    callback = opened(BackendsCallback([], wandb='vq'), tmp_path)
    found = measure({'gradient/a': torch.tensor([0.0, 1.0, 4.0]), 'parameter/a': torch.tensor([2.0])}, 2, joined=False).read()
    callback.runner.journal.histograms(7, found)
    of = {'gradient/a': ('histogram', ([2, 1], [0.0, 2.0, 4.0])), 'parameter/a': ('histogram', ([0, 1], [1.5, 2.0, 2.5]))}
    ((name, (step, made)),) = wandb.calls[1:]
    plain = {key: (kind, tuple(part.tolist() for part in parts)) for key, (kind, parts) in made.items()}
    assert (name, step, plain) == ('log', 7, of)


def test_without_the_option_nothing_is_sent(here: Path, wandb: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    """A run has a name always; a project has to be given."""
    said_by(capsys, train.main, *RUN, '--config-options', 'iters:4')
    assert wandb.calls == [] and not (here / 'work_dirs/run/wandb').exists()


@pytest.mark.slow
def test_a_resumed_run_continues_the_same_run_of_wandb(
    here: Path, wandb: Recorder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('WANDB_MODE', 'offline')  # wandb reads it; nothing here may depend on its server
    option = ['--override', '.trainer.callbacks.backends.wandb::mine']
    said = said_by(capsys, train.main, *RUN, '--config-options', 'iters:4', *option)
    assert 'wandb run abc123, offline: wandb sync files' in said
    said_by(capsys, train.main, *RUN, '--auto-resume', '--config-options', 'iters:6', *option)
    starts = [given for name, given in wandb.calls if name == 'init']
    assert [(given['project'], given.get('id'), given.get('resume')) for given in starts] == [
        ('mine', None, None),
        ('mine', 'abc123', 'allow'),
    ]
    steps = [given[0] for name, given in wandb.calls if name == 'log']
    assert steps == sorted(steps) and steps[-1] == 6
    assert starts[0]['config']['trainer']['iters'] == 4


def test_a_wandb_that_cannot_start_ends_the_command_before_the_first_step(
    here: Path, wandb: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.refuses = True
    said = said_by(
        capsys,
        train.main,
        *RUN,
        '--config-options',
        'iters:4',
        '--override',
        '.trainer.callbacks.backends.wandb::mine',
        code=2,
    )
    assert 'Weights & Biases cannot be started: api_key not configured' in said and 'WANDB_MODE=offline' in said
    assert not (here / 'work_dirs/run/checkpoints').exists()


@pytest.mark.parametrize('config', ['digits/vq_ema.py', 'digits/ar.py', 'vq/folder.py', 'ic/digits.py'])
def test_one_option_of_every_family_logs_to_wandb(config: str) -> None:
    def backends(**options: Any) -> Any:
        found = compose(config, options, {}, tiny=False).trainer.callbacks['backends']
        return None if found is None else plain(found)

    assert backends() == {'type': 'BackendsCallback'}
    assert backends(wandb='mine') == {'type': 'BackendsCallback', 'wandb': 'mine'}
    assert backends(log_backend='LocalVisBackend') == {'type': 'BackendsCallback', 'backends': [{'type': 'LocalVisBackend'}]}
    assert backends(log_backend=None) is None
    assert backends(log_backend=None, wandb='mine') == {'type': 'BackendsCallback', 'backends': [], 'wandb': 'mine'}
