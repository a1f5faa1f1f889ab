"""What a terminal shows: a bar of one line at any width, a block before and after the work, marked warnings."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import re
import struct
import subprocess
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.runners.support import REPOSITORY, commands_here, said_by, write_config
from tests.snippets import environment
from tests.warm import programs
from vq.assembly import logs, telling
from vq.cli import train, val
from vq.core import output
from vq.core.figures import direction
from vq.io.spec import LatentSpec, Spec, TokenSpec
from vq.runners import progress

ESCAPE = re.compile(r'\x1b\[[0-9;?]*[A-Za-z]')
TRAIN = ('run', 'tiny.py', '--override', '.trainer.callbacks.log.interval:1')
BAR = '.trainer.callbacks.progress:' + repr({'type': 'ProgressCallback'})


def on_terminal(folder: Path, columns: int, *arguments: str, **variables: str) -> tuple[int, str]:
    """``vq.train`` on a pseudo-terminal; its exit code, and the bytes that it wrote."""
    write_config(folder)
    main, own = pty.openpty()
    fcntl.ioctl(own, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
    given = {**environment(), 'PYTHONPATH': str(REPOSITORY), 'TERM': 'xterm', **variables}
    for name in ('COLUMNS', 'LINES') + (() if 'NO_COLOR' in variables else ('NO_COLOR',)):
        given.pop(name, None)
    process = subprocess.Popen(
        [programs() / 'python', '-m', 'vq.train', *arguments], cwd=folder, env=given, stdin=own, stdout=own, stderr=own
    )
    os.close(own)
    written = b''
    while True:
        try:
            piece = os.read(main, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        written += piece
    os.close(main)
    return process.wait(), written.decode()


def rows_of(written: str) -> list[str]:
    """The bars that were drawn: what stands between a carriage return or line feed and the next one."""
    return [line for line in re.split(r'[\r\n]+', ESCAPE.sub('', written)) if line.startswith(('training ', 'validating '))]


@pytest.mark.slow
def test_the_bar_of_a_training_is_one_line_of_80_columns_with_loss_and_rate(tmp_path: Path) -> None:
    evaluate = '.trainer.callbacks.evaluate:' + repr({'type': 'EvalCallback', 'interval': 4, 'limit': 16})
    code, written = on_terminal(tmp_path, 80, *TRAIN, BAR, evaluate, '.trainer.callbacks.alarm.threshold:1.1')
    rows = rows_of(written)
    assert code == 0 and rows
    assert max(map(len, rows)) == 79  # the bar fills the line, and never wraps
    assert any(re.fullmatch(r'training ━*─* \d/8 loss \d\.\d{4} [\d.]+ images/s eta 0:00:\d\d', row) for row in rows)
    assert any(row.startswith('validating') for row in rows)
    plain = ESCAPE.sub('', written)
    assert plain.index('training run in') < plain.index(rows[0])  # no bar before the first step
    assert re.search(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d trained 8 steps in 0:', plain)
    assert '\x1b[1;33mWARNING\x1b[0m codebook alarm' in written
    assert 'WARNING codebook alarm' in (tmp_path / 'work_dirs/run/log.txt').read_text()


@pytest.mark.slow
def test_a_terminal_without_colours_gets_none(tmp_path: Path) -> None:
    code, written = on_terminal(tmp_path, 60, *TRAIN, BAR, NO_COLOR='1')
    assert code == 0 and not re.search(r'\x1b\[[\d;]*m', written)
    assert max(map(len, rows_of(written))) < 60
    code, written = on_terminal(tmp_path, 80, *TRAIN)  # the run exists
    assert code == 2 and '\x1b[1;31merror:\x1b[0m the run work_dirs/run exists already' in written


@pytest.mark.parametrize('width', [1, 10, 20, 33, 45, 60, 80, 81, 120, 200])
@pytest.mark.parametrize('total', [7, 260_000])
def test_a_row_fits_any_width(width: int, total: int) -> None:
    said, rate, left = 'loss 12.3456', '12345.6 images/s', 360_061.0
    row = progress.row(width, 'training', total // 2, total, said, rate, left)
    assert len(row) < max(width, 1) and '\n' not in row
    # from most to least dispensable: a part stands in the row only if all that are more important do
    parts = [f'{total // 2}/{total}', 'eta 100:01:01', 'training', said, rate, '━']
    there = [part in row for part in parts]
    if width > len(parts[0]) + 1:
        assert there[:-1] == sorted(there[:-1], reverse=True), row  # the bar takes what room is left
    if width >= 80:
        assert all(there), row


def test_a_row_shows_how_far_it_is() -> None:
    bars = [re.findall('[━─]', progress.row(80, 'x', done, 40)) for done in (0, 10, 40, 50)]
    assert [bar.count('━') for bar in bars] == [0, 10, 40, 40] and {len(bar) for bar in bars} == {40}
    assert '━' not in progress.row(80, 'x', 0, 0)


def test_a_pipe_gets_lines_with_rate_and_time_left(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, 'time', SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(logging.getLogger('vq'), 'propagate', True)
    caplog.set_level(logging.INFO, 'vq')
    with progress.ProgressBar('drawing', 100, 'images') as bar, progress.ProgressBar('silent', 9, 'images', lines=False) as no:
        for _ in range(5):
            now[0] += 8
            bar.advance(4)
            no.advance()
    lines = list(dict.fromkeys(record.getMessage() for record in caplog.records))
    assert lines == ['drawing: 12 of 100 images, 0.5 images/s, eta 0:02:56']


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    with commands_here(dry=False):
        yield tmp_path


@pytest.mark.slow
def test_a_training_says_what_it_will_do_and_what_it_has_done(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = '.trainer.callbacks.evaluate:' + repr({'type': 'EvalCallback', 'interval': 2, 'limit': 16})
    options = ['--config-options', 'iters:4', '--override', evaluate, '.trainer.strategy.accumulate:2']
    options += ['.trainer.optimizers.tokenizer.scale_lr::linear', '.trainer.optimizers.tokenizer.base_batch:64']
    said = said_by(capsys, train.main, 'run', 'tiny.py', *options)
    rows = dict(re.findall(r'^  (\w+) +(\S.*(?:\n   .*)*)', said, re.MULTILINE))
    assert 'strategy base, 1 rank, fp32' in ' '.join(rows['device'].split())
    images = ' '.join(rows['images'].split())
    assert images == '1,437 of digits/train, 10 classes, 32 x 32 pixels; held out: 180 of digits/validation, 10 classes'
    assert ' '.join(rows['codes'].split()) == '16 x 16 tokens of 32 codes, 1,280 bits an image, 1.25 bits a pixel'
    assert 'AdamW at 0.0005 = 0.002 x 0.25 (linear, 16 of 64 images), CosineSchedule, clip 1' in ' '.join(
        rows['learning'].split()
    )
    assert ' '.join(rows['length'].split()) == '4 steps of 16 images (8 a rank x 2 micro-batches), 0.0445 epochs'
    assert rows['saved'] == 'every 4 steps and at the end' and 'every 2 steps and at the end, on 16' in rows['evaluated']
    assert rows['checkpoint'] == 'work_dirs/run/checkpoints/iter_4' and rows['log'] == 'work_dirs/run/log.jsonl'
    assert 'tensorboard --logdir work_dirs/run/tensorboard' in rows['watch']
    order = ['preflight passed', 'training run in', '[4/4]', 'trained 4 steps', 'best psnr']
    assert [said.index(text) for text in order] == sorted(said.index(text) for text in order)
    lines = [json.loads(line) for line in (here / 'work_dirs/run/log.jsonl').read_text().splitlines()]
    psnr = {line['step']: line['psnr'] for line in lines if line['kind'] == 'eval'}
    best = max(psnr, key=psnr.__getitem__)
    assert re.search(rf'psnr {psnr[best]:.4g}[^;]*at\s+step {best}', rows['figures'])
    assert all(len(line) < 80 for text in rows.values() for line in text.splitlines())

    said = said_by(capsys, val.main, 'run', 'tiny.py')
    assert 'validating run into work_dirs/run/val' in said and 'work_dirs/run/val/iter_4/results.json' in said
    assert re.search(r'parameters: encoder [\d.]+k', said) and 'trained:' not in said


def test_the_codes_of_an_image_in_bits() -> None:
    image = (64, 32)
    assert telling.describe_codes(Spec('tokenizer', image, tokens=TokenSpec((8, 4), (1024,)))) == (
        '8 x 4 tokens of 1024 codes, 320 bits an image, 0.156 bits a pixel'
    )
    assert telling.describe_codes(Spec('tokenizer', None, tokens=TokenSpec((2,), (8, 5)))) == (
        '2 x 2 tokens of 8 x 5 codes, 10.6 bits an image'  # 2 * (3 + log2 5)
    )
    assert telling.describe_codes(Spec('tokenizer', image, latent=LatentSpec(16, (8, 4)))) == (
        'latents of 16 channels in 8 x 4 cells, no tokens'
    )


def test_the_better_direction_of_a_figure() -> None:
    names = {'fid': -1, 'generate_fid': -1, 'lpips_vgg': -1, 'psnr': 1, 'top1': 1, 'samples': 0, 'dead_codes': 0}
    assert {name: direction(name) for name in names} == names


def test_the_best_figures_are_those_of_their_steps() -> None:
    lines = [
        {'step': 1, 'kind': 'eval', 'psnr': 20.0, 'fid': 9.0, 'ssim': float('nan')},
        {'step': 2, 'kind': 'eval', 'psnr': 22.0, 'fid': 9.5, 'ssim': 0.5, 'seconds': 1.0},
        {'step': 2, 'kind': 'train', 'total': 1.0},
    ]
    assert telling.figures(lines) == 'best psnr 22, ssim 0.5 at step 2; fid 9 at step 1'
    assert telling.figures([]) == '' and telling.losses(lines) == 'total 1.0000 -> 1.0000'


def test_a_block_wraps_texts_and_never_commands() -> None:
    command = 'tensorboard --logdir a/folder/of/some/length/tensorboard'
    rows = {'one': 'word ' * 30, 'watch': output.unbroken(command), 'none': ''}
    lines = output.block('title', rows, 60).splitlines()
    assert lines[0] == 'title' and all(line.startswith('  ') for line in lines[1:])
    assert f'  watch  {command}' in lines and not any('none' in line for line in lines)
    assert all(len(line) < 60 for line in lines if command not in line)


def test_lines_of_the_log_have_date_rank_and_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv('RANK', '3')
    logger = logs.start(tmp_path)
    try:
        logger.info('not of this rank')
        logger.warning('%s is odd', 'x')
        logger.error('broken')
    finally:
        monkeypatch.delenv('RANK')
        logs.start()
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d rank 3 WARNING x is odd', first) and second.endswith('ERROR broken')
    assert time.strftime('%Y') == first[:4]
