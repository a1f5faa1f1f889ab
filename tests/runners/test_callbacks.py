"""Files and logs that callbacks write."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from tests.runners.support import build_trainer, quiet
from vq.core.errors import ConfigError
from vq.core.records import Batch, Losses, Outputs
from vq.interfaces import Callback
from vq.runners.callbacks.log import LogCallback
from vq.runners.journal import Journal, read
from vq.strategies.base import BaseStrategy


def run(folder: Path, *callbacks: dict[str, Any], iters: int = 4) -> Any:
    trainer = build_trainer(folder, dict(iters=iters), quiet(*callbacks))
    trainer.run()
    return trainer


class Values(Callback):
    def __init__(self) -> None:
        self.totals: list[float] = []

    def after_losses(self, name: str, losses: Losses) -> None:
        self.totals.append(float(losses.total))


def test_logged_losses_are_means_over_the_interval(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, dict(iters=5), quiet(dict(type='LogCallback', interval=2)))
    values = Values()
    trainer.callbacks['values'] = values
    trainer.run()
    lines = read(tmp_path / 'run/log.jsonl', 'train')
    assert [line['step'] for line in lines] == [2, 4, 5]
    means = [sum(values.totals[0:2]) / 2, sum(values.totals[2:4]) / 2, values.totals[4]]
    assert [line['total'] for line in lines] == pytest.approx(means, rel=1e-6)
    terms = [[line[name] for name in ('l2', 'codebook', 'commitment') if name in line] for line in lines]
    assert [sum(found) for found in terms] == pytest.approx(means, rel=1e-6) and len(terms[0]) > 1
    assert lines[0]['weights'] == {'commitment': 0.25}
    assert lines[-1]['samples'] == 40
    assert 0 <= lines[-1]['timing']['data_wait'] <= 1
    assert lines[-1]['timing']['images_per_second'] > 0


def test_several_optimizers_are_told_apart() -> None:
    callback = LogCallback(interval=1)
    callback.runner = SimpleNamespace(optimizers={'generator': None, 'discriminator': None}, strategy=BaseStrategy('cpu'))
    callback.after_losses('generator', Losses({'hinge': torch.tensor(5.0)}, {'hinge': 2.0}))
    assert callback._means() == {'generator/hinge': 10.0, 'generator/total': 10.0}  # named so before the other one starts
    for name, value in (('generator', 1.0), ('discriminator', 3.0)):
        callback.after_losses(name, Losses({'hinge': torch.tensor(value)}, {'hinge': 2.0}, {'weight': torch.tensor(7.0)}))
    assert callback._means() == {
        'generator/hinge': 2.0,
        'generator/total': 2.0,
        'generator/weight': 7.0,
        'discriminator/hinge': 6.0,
        'discriminator/total': 6.0,
        'discriminator/weight': 7.0,
    }


def test_a_term_that_some_steps_lack_counts_as_zero_there() -> None:
    callback = LogCallback(interval=1)
    callback.runner = SimpleNamespace(optimizers={'discriminator': None}, strategy=BaseStrategy('cpu'))
    """So that terms add up to the total. A note is averaged over the steps that have it."""
    hinge = Losses({'hinge': torch.tensor(1.0)}, {'hinge': 1.0})
    values = {'hinge': torch.tensor(4.0), 'r1': torch.tensor(6.0)}
    lazy = Losses(values, {'hinge': 1.0, 'r1': 0.5}, {'logits': torch.tensor(9.0)})
    for losses in (hinge, lazy, hinge):
        callback.after_losses('discriminator', losses)
    after_restart = LogCallback(interval=1)
    after_restart.runner = callback.runner
    after_restart.load_rank_state_dict(callback.rank_state_dict())
    assert callback._means() == after_restart._means() == {'hinge': 2.0, 'r1': 1.0, 'total': 3.0, 'logits': 9.0}


def test_grids_are_pictures_of_the_batch(tmp_path: Path) -> None:
    run(tmp_path, dict(type='ImageGridCallback', interval=2, count=4))
    files = sorted(path.name for path in (tmp_path / 'run/pictures').iterdir())
    assert files == ['iter_2_reconstruction.png', 'iter_4_reconstruction.png']
    with Image.open(tmp_path / 'run/pictures/iter_4_reconstruction.png') as picture:
        assert picture.size == (4 * 34 + 2, 2 * 34 + 2)  # four columns, input above reconstruction, gaps of two


def test_the_alarm_rings_below_the_threshold_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    logging.getLogger('vq').propagate = True
    run(tmp_path / 'low', dict(type='CodebookAlarmCallback', interval=2, threshold=0.99))
    assert 'codebook alarm at step 2' in caplog.text
    assert 'restarts of unused codes' in caplog.text
    caplog.clear()
    run(tmp_path / 'fine', dict(type='CodebookAlarmCallback', interval=2, threshold=0.0))
    assert 'alarm' not in caplog.text
    line = read(tmp_path / 'fine/run/log.jsonl', 'codebook')[-1]
    assert line['dead_codes'] == round(32 * (1 - line['usage']))
    assert line['tokens'] == 2 * 8 * 16 * 16  # two steps of eight images of 16 x 16 cells


def test_the_alarm_names_the_codebook_that_dies(caplog: pytest.LogCaptureFixture) -> None:
    """Two codebooks of 8: the tokens of the first use all of it, those of the second one code."""
    import logging

    import torch

    from vq.core.records import Batch, Outputs
    from vq.runners.callbacks.codebook_alarm import CodebookAlarmCallback

    written: list[dict[str, float]] = []
    runner = SimpleNamespace(
        model=SimpleNamespace(codebooks=(8, 8)),
        strategy=SimpleNamespace(device=torch.device('cpu')),
        journal=SimpleNamespace(write=lambda step, kind, values: written.append(values)),
        step=4,
    )
    logging.getLogger('vq').propagate = True
    alarm = CodebookAlarmCallback(interval=4)
    alarm.bind(runner)
    alarm.after_step()  # no tokens, so no warning
    assert 'alarm' not in caplog.text
    first = torch.arange(64).view(4, 4, 4) % 8
    batch = Batch(torch.empty(4, 3, 0, 0), list('abcd'), torch.arange(4))
    alarm.after_batch(batch, Outputs(tokens=torch.stack([first, torch.full_like(first, 5)], dim=-1)))
    alarm.after_step()
    assert '12.5 % of 8 codes of codebook 2' in caplog.text
    line = written[-1]
    assert (line['usage_1'], line['usage_2'], line['dead_codes'], line['tokens']) == (1, 1 / 8, 7, 128)


def test_the_repository_is_described(tmp_path: Path) -> None:
    run(tmp_path, dict(type='GitCallback'), iters=1)
    text = (tmp_path / 'run/git.txt').read_text()
    assert text.startswith(('commit ', 'vq '))


def test_an_unknown_back_end_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="back end 'NoSuchVisBackend' cannot be started"):
        run(tmp_path, dict(type='BackendsCallback', backends=[dict(type='NoSuchVisBackend')]))


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run(tmp_path, dict(type='PreemptionCallback'), iters=1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_checkpoints_are_kept_as_asked(tmp_path: Path) -> None:
    run(tmp_path, dict(type='CheckpointCallback', interval=1, keep_last=2, keep_every=3), iters=7)
    assert sorted(path.name for path in (tmp_path / 'run/checkpoints').glob('iter_*')) == ['iter_3', 'iter_6', 'iter_7']


def test_the_journal_rewinds_and_forgets_half_a_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / 'log.jsonl')
    for step in (1, 2, 3):
        journal.write(step, 'train', {'total': step / 2})
    with journal.path.open('a') as file:
        file.write('{"step": 4, "to')
    assert [line['step'] for line in read(journal.path)] == [1, 2, 3]
    journal.rewind(2)
    assert [json.loads(line) for line in journal.path.read_text().splitlines()] == [
        {'step': 1, 'kind': 'train', 'total': 0.5},
        {'step': 2, 'kind': 'train', 'total': 1.0},
    ]


def test_an_error_reaches_every_callback_and_the_strategy_stops(tmp_path: Path) -> None:
    class Failing(Callback):
        def after_batch(self, batch: Batch, outputs: Outputs) -> None:
            raise ValueError('broken')

    told: list[BaseException] = []

    class Listener(Callback):
        def on_error(self, error: BaseException) -> None:
            told.append(error)

    trainer = build_trainer(tmp_path, None, quiet())
    trainer.callbacks |= {'failing': Failing(), 'listener': Listener()}
    with pytest.raises(ValueError, match='broken'):
        trainer.run()
    assert [str(error) for error in told] == ['broken']


def test_files_of_frozen_parts_are_recorded_and_a_change_is_noticed(tmp_path: Path) -> None:
    from vq.core.errors import UserError
    from vq.interfaces import Pretrained
    from vq.io import checkpoints

    file = tmp_path / 'teacher.bin'
    file.write_bytes(b'weights')

    class Teacher(torch.nn.Module, Pretrained):
        def load_pretrained(self) -> None:
            self.content = file.read_bytes()

        def pretrained_files(self) -> list[Path]:
            return [file]

    trainer = build_trainer(tmp_path, dict(iters=1), quiet(dict(type='CheckpointCallback')))
    trainer.model.teacher = Teacher()
    trainer.run()
    path = tmp_path / 'run/checkpoints/iter_1'
    assert [*checkpoints.load(path).frozen] == [str(file)]
    file.write_bytes(b'other weights')
    with pytest.raises(UserError, match=r'teacher\.bin'):
        checkpoints.load(path)


@pytest.mark.slow
def test_logging_back_ends_start_without_what_they_do_not_need(tmp_path):
    """mmengine would import transformers, which imports torch_xla. That takes seconds and selects a device. TensorBoard would
    import packages for folders on S3.
    """
    code = (
        'import pathlib, sys\n'
        'from vq.runners.callbacks.backends import TensorBoard, hidden\n'
        f'TensorBoard(pathlib.Path({str(tmp_path)!r}), 0).close()\n'
        "assert 'tensorboard' in sys.modules and not {'boto3', 'botocore', 'fsspec'} & set(sys.modules)\n"
        "with hidden('transformers'):\n"
        '    import mmengine.visualization\n'
        "assert not {'transformers', 'torch_xla', 'torch._inductor'} & set(sys.modules)\n"
        'import transformers\n'  # who needs it later finds it
        "with hidden('transformers'):\n"
        "    assert sys.modules['transformers'] is transformers\n"
    )
    subprocess.run([sys.executable, '-c', code], check=True)
    assert [*tmp_path.glob('events.out.tfevents.*')]
