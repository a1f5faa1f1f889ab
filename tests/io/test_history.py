"""Listing checkpoints, resolving patterns, and retention."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from vq.core import collectives
from vq.core.errors import ConfigError, UserError
from vq.io import history
from vq.io.history import Retention, expand_braces


def fake(folder: Path, step: int, **metrics: float) -> Path:
    """A minimal checkpoint: files, and a marker with their sizes."""
    path = folder / f'iter_{step}'
    path.mkdir(parents=True)
    (path / 'meta.json').write_text('{}')
    (path / 'model.safetensors').write_bytes(b'x' * step)
    sizes = {file.name: {'size': file.stat().st_size} for file in path.iterdir()}
    (path / 'COMPLETE').write_text(json.dumps({'format_version': 1, 'files': sizes}))
    history.note_metrics(path, metrics)
    return path


def steps(folder: Path) -> list[int]:
    return [step for step, _ in history.list_complete(folder)]


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 10, 9):
        fake(tmp_path, step)
    (tmp_path / 'iter_1' / 'COMPLETE').unlink()
    (tmp_path / 'iter_2' / 'model.safetensors').write_bytes(b'x')
    (tmp_path / 'iter_3' / 'meta.json').unlink()
    (tmp_path / 'iter_4' / 'COMPLETE').write_text('{"files": {"model.saf')
    (tmp_path / 'iter_x').mkdir()
    (tmp_path / 'latest').write_text('iter_2\n')
    assert steps(tmp_path) == [9, 10]
    assert history.latest(tmp_path) == tmp_path / 'iter_10'  # not the one that latest names: it is broken
    (tmp_path / 'latest').write_text('iter_9\n')
    assert history.latest(tmp_path) == tmp_path / 'iter_9'
    (tmp_path / 'latest').write_bytes(b'\xff\xfe../x')
    assert history.latest(tmp_path) == tmp_path / 'iter_10'


def test_an_empty_or_missing_folder_has_none(tmp_path: Path) -> None:
    assert history.latest(tmp_path) is None
    assert history.latest(tmp_path / 'none') is None
    assert history.list_complete(tmp_path / 'none') == []
    with pytest.raises(UserError, match='is called') as caught:
        history.expand(tmp_path / 'none', 'all')
    assert caught.value.hint == 'There is none yet.'


@pytest.mark.parametrize(
    ('pattern', 'expected'),
    [
        ('iter_20', [20]),
        ('iter_{2,4}', [2, 4]),
        ('iter_{4,2,4}', [2, 4]),
        ('iter_{15..26}0000', [160000, 200000]),
        ('iter_{2..20..2}', [2, 4, 20]),
        ('iter_{20..2}', [2, 4, 20]),
        ('iter_{,2}{0,}', [2, 20]),
        ('iter_2*', [2, 20, 200000]),
        ('all', [2, 4, 20, 160000, 200000]),
        ('latest', [4]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list[int]) -> None:
    for step in (2, 4, 20, 160000, 200000):
        fake(tmp_path, step)
    (tmp_path / 'latest').write_text('iter_4')
    assert [step for step, _ in history.expand(tmp_path, pattern)[0]] == expected


@pytest.mark.parametrize('pattern', ['iter_5', 'iter_{5..7}', 'iter_', '', '../iter_2', 'iter_{2'])
def test_a_pattern_without_a_match_lists_what_there_is(tmp_path: Path, pattern: str) -> None:
    fake(tmp_path, 2)
    fake(tmp_path, 30)
    with pytest.raises(UserError) as caught:
        history.expand(tmp_path, pattern)
    assert caught.value.hint == 'There are: iter_2, iter_30.'


def test_a_dry_run_takes_its_latest_checkpoint_for_steps_it_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / 'work_dirs/dry_run/a/checkpoints', tmp_path / 'work_dirs/a/checkpoints'
    for step in (4, 8):
        fake(here, step)
        fake(there, step)
    many = [f'iter_{number}0000' for number in range(15, 27)]
    with pytest.raises(UserError, match='no complete checkpoint'):
        history.expand(here, *many)
    monkeypatch.setenv('DRY_RUN', 'True')
    assert history.expand(here, *many) == ([(8, here / 'iter_8')], many)
    assert history.expand(here, 'iter_{4..5}')[0] == [(4, here / 'iter_4')], 'one that is there'
    for folder, pattern in ((here, 'iter_x'), (here, 'iter_9*'), (there, 'iter_7'), (tmp_path / 'dry_run/none', 'iter_7')):
        with pytest.raises(UserError, match='no complete checkpoint'):
            history.expand(folder, pattern)


def test_braces_are_those_of_the_shell() -> None:
    bash = shutil.which('bash')
    if bash is None:
        pytest.skip('needs bash as the oracle, and this machine has none')
    for pattern in (
        'a{1..3}b',
        'a{3..1}',
        '{08..11}',
        '{1..10..4}',
        '{10..1..4}',
        'x{a,b}{1..2}',
        '{-2..1}',
        'plain',
        '{a,}c',
    ):
        printed = subprocess.run([bash, '-c', f'echo {pattern}'], capture_output=True, text=True, check=True).stdout.split()
        assert list(expand_braces(pattern)) == printed, pattern


def test_a_pattern_that_stands_for_too_many_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='more than'):
        history.expand(tmp_path, 'iter_{0..99999999}')


def test_prune_keeps_the_last_the_best_the_multiples_and_the_latest(tmp_path: Path) -> None:
    for step, psnr in ((1, 30.0), (2, 10.0), (3, float('nan')), (4, 29.0), (5, 11.0), (6, 12.0), (7, 13.0), (8, 14.0)):
        fake(tmp_path, step, psnr=psnr)
    (tmp_path / 'iter_2' / 'COMPLETE').unlink()  # not whole: not ours to delete
    (tmp_path / 'latest').write_text('iter_5')
    retention = Retention(keep_last=2, keep_best=2, best_metric='psnr', keep_every=3)
    removed = history.prune(tmp_path, retention)
    assert removed == []  # 1 and 4 best, 3 and 6 multiples, 7 and 8 last, 5 latest
    removed = history.prune(tmp_path, Retention(keep_last=1, keep_best=1, best_metric='psnr', best_is='min'))
    assert [path.name for path in removed] == ['iter_1', 'iter_3', 'iter_4', 'iter_6', 'iter_7']
    assert steps(tmp_path) == [5, 8]  # 5 is the least and the latest
    assert sorted(os.listdir(tmp_path)) == ['iter_2', 'iter_5', 'iter_8', 'latest']


def test_prune_without_a_number_keeps_all_and_with_zero_the_latest(tmp_path: Path) -> None:
    for step in (1, 2):
        fake(tmp_path, step)
    assert history.prune(tmp_path, Retention()) == []
    history.prune(tmp_path, Retention(keep_last=0))
    assert steps(tmp_path) == [2]


def test_the_marker_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        fake(tmp_path, step)
    done = []
    for name in ('unlink', 'rename', 'rmdir'):
        real = getattr(os, name)

        def watch(path: object, *rest: object, name: str = name, real: object = real, **places: object) -> None:
            done.append((name, Path(str(path)).name))
            real(path, *rest, **places)  # type: ignore[operator]

        monkeypatch.setattr(os, name, watch)
    history.prune(tmp_path, Retention(keep_last=1))
    assert done[0] == ('unlink', 'COMPLETE')
    assert len(done) > 3


def test_a_checkpoint_that_cannot_be_deleted_does_not_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        fake(tmp_path, step)

    def busy(path: object) -> None:
        raise OSError(16, 'Device or resource busy')

    monkeypatch.setattr(shutil, 'rmtree', busy)
    with pytest.warns(UserWarning, match='iter_1 is not kept and cannot be deleted'):
        assert history.prune(tmp_path, Retention(keep_last=1)) == []
    assert steps(tmp_path) == [2]


def test_other_ranks_delete_nothing(tmp_path: Path) -> None:
    class SecondRank(collectives.SingleProcess):
        rank = 1
        size = 2

    for step in (1, 2):
        fake(tmp_path, step)
    collectives.install(SecondRank())
    assert history.prune(tmp_path, Retention(keep_last=1)) == []
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize('settings', [{'keep_best': 1}, {'best_is': 'high'}, {'keep_last': -1}, {'keep_every': 0}])
def test_settings_that_mean_nothing_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError):
        Retention(**settings)


def test_names_without_a_checkpoint_are_listed_and_the_others_are_found(tmp_path: Path) -> None:
    """``vq.val --load-from iter_{2..5}0``, with quotes around the pattern or without."""
    for step in (20, 40):
        fake(tmp_path, step)
    for patterns in (['iter_{2..5}0'], ['iter_20', 'iter_30', 'iter_40', 'iter_50']):
        found, missing = history.expand(tmp_path, *patterns)
        assert [step for step, _ in found] == [20, 40] and missing == ['iter_30', 'iter_50']
    with pytest.raises(UserError, match="called 'iter_30', 'iter_50'"):
        history.expand(tmp_path, 'iter_30', 'iter_50')
