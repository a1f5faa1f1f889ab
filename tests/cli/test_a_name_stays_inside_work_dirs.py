"""NAME is a folder below work_dirs, ``--overwrite`` removes only what a run wrote, and nothing else has the name of a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.runners.support import everything_in, said_by
from vq.cli import fid, llamagen, sample, test, tokenize, train, val
from vq.core import run_names
from vq.core.errors import UserError
from vq.io import run_folder
from vq.io.runs import find

WEIGHTS = ('--load-model-from', 'run')
COMMANDS: dict[str, tuple[Callable[[list[str]], int], tuple[str, ...]]] = {
    'train': (train.main, ('tiny.py', '--overwrite')),
    'val': (val.main, ('tiny.py',)),
    'test': (test.main, ('tiny.py', *WEIGHTS)),
    'tokenize': (tokenize.main, ('tiny.py', *WEIGHTS)),
    'sample': (sample.main, ('tiny.py', '--overwrite', *WEIGHTS)),
    'llamagen': (llamagen.main, ('tiny.py', *WEIGHTS)),
}
WRONG = ['../flowers', '/tmp/flowers', '.', '..', 'a/../../flowers', './run', '', '/', 'x' * 300, 'a\nb']


@pytest.mark.parametrize('name', COMMANDS)
def test_a_name_that_leads_out_is_refused_by_every_command(home: Path, capsys: Any, name: str) -> None:
    (home / 'flowers/val/roses').mkdir(parents=True)
    (home / 'flowers/val/roses/1.png').write_bytes(b'a picture')
    (home / 'flowers/log.jsonl').write_text('{}')
    before = everything_in(home)
    main, words = COMMANDS[name]
    for wrong in WRONG if name == 'train' else WRONG[:1]:
        said = said_by(capsys, main, wrong, *words, code=2)
        assert 'error: NAME' in said and '--work-dir' in said.splitlines()[-1], said
    assert everything_in(home) == before


def test_names_that_stay_inside() -> None:
    published = 'decoder/vqgan/vqkd_clip_8192_imagenet_ddp/vqgan_8192_dd2_aglwg075_imagenet_ddp'
    for name in (published, 'digits', '.hidden', 'a..b', 'größe', 'x' * 200):
        assert run_names.checked(name) == name
    assert run_names.checked('a//b/') == 'a/b'
    for wrong in WRONG:
        with pytest.raises(UserError):
            run_names.checked(wrong)


def test_the_name_of_statistics_stays_inside_too(home: Path, capsys: Any, monkeypatch: Any) -> None:
    def refuse(*arguments: Any) -> None:
        raise UserError(f'opened {arguments[4]}')

    monkeypatch.setattr('vq.assembly.building.open_runner', refuse)
    (home / 'here').mkdir()
    (home / 'own.py').write_text("trainer = validator = dict(dataset=dict(type='DigitsDataset', split='train'))")
    monkeypatch.chdir(home / 'here')
    assert 'opened work_dirs/fid/own_train' in said_by(capsys, fid.main, '../own', '--train', code=2)


@pytest.mark.slow
def test_overwrite_removes_only_what_a_run_wrote(home: Path, capsys: Any) -> None:
    run = home / 'work_dirs/run'
    said_by(capsys, val.main, 'run', '--load-from', 'iter_2')
    (run / 'eval/iter_4/visual').mkdir(parents=True)
    (run / 'pictures').mkdir(exist_ok=True)
    (run / 'pictures/iter_4_reconstruction.png').write_bytes(b'drawn')
    mine = ['val/roses/1.png', 'pictures/cat.png', 'tokens/notes.txt', 'checkpoints/notes.txt', 'eval/iter/x', 'notes.txt']
    for name in mine:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text('mine')
    log = (run / 'log.jsonl').read_bytes()
    kept = run_folder.start_over(run)
    assert kept is not None and kept.parent == run and (kept / 'log.jsonl').read_bytes() == log
    left = {name for name, content in everything_in(run).items() if content is not None and not name.startswith('old_')}
    assert left == {*mine, 'tiny.json', 'log.txt', 'samples_0.txt'}
    for name in mine:
        (run / name).unlink()
    said = said_by(capsys, train.main, 'run', 'tiny.py', '--config-options', 'iters:3')
    assert 'deleted' not in said


def test_overwrite_with_a_config_or_weights_that_do_not_fit_deletes_nothing(home: Path, capsys: Any) -> None:
    before = {name: content for name, content in everything_in(home / 'work_dirs/run').items() if name != 'log.txt'}
    for words in (
        ('--override', '.trainer.optimizers.tokenizer.schedule.warmup:99'),
        ('--override', '.trainer.model.tokenizer.encoder.widht:8'),
        ('--load-model-from', 'nowhere'),
    ):
        said_by(capsys, train.main, 'run', 'tiny.py', '--overwrite', *words, code=2)
    found = {name: content for name, content in everything_in(home / 'work_dirs/run').items() if name != 'log.txt'}
    assert found == before


def test_a_folder_here_never_stands_for_a_run_or_a_published_tokenizer(home: Path, monkeypatch: Any) -> None:
    shutil.copytree('work_dirs/run', 'run')
    assert find('run').folder == Path('work_dirs/run')
    for step in (2, 4):
        Path(f'work_dirs/run/checkpoints/iter_{step}/COMPLETE').unlink()
    with pytest.raises(
        UserError, match=r"'run' is a run here and in work_dirs, there without a complete checkpoint"
    ) as caught:
        find('run')
    assert caught.value.hint == 'Write ./run or work_dirs/run.'
    assert find('./run').folder == Path('run')
    Path('taming-f16-1024').mkdir()
    save_file({'w': torch.zeros(1)}, 'taming-f16-1024/model.safetensors')
    with pytest.raises(UserError, match=r"'taming-f16-1024'.* is not there yet") as caught:
        find('taming-f16-1024')
    assert 'write ./taming-f16-1024' in caught.value.hint
    assert find('./taming-f16-1024').weights == Path('taming-f16-1024/model.safetensors')
