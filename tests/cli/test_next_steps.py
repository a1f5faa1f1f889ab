"""The closing lines of commands: which command comes next for which run, and how names and folders are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from vq.cli.next_steps import after, say_next, say_next_of
from vq.io.runs import Run
from vq.io.spec import Spec, TokenSpec

FEATURES = 'VQTaskRegistry.FeatureTokenization'


def run_of(
    folder: Path,
    kind: str = 'tokenizer',
    dataset: str = 'VQDatasetRegistry.FolderDataset',
    tokens: bool = True,
    task: str = 'ImageTokenization',
) -> Run:
    made = Run('a', folder / 'checkpoints' / 'iter_1', folder / 'checkpoints' / 'iter_1', folder)
    vars(made)['spec'] = Spec(kind, (64, 64), tokens=TokenSpec((8, 8), (256,)) if tokens else None)
    vars(made)['config'] = {'trainer': {'dataset': {'type': dataset}, 'model': {'type': task}}}
    return made


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.delenv('DRY_RUN', raising=False)


TOK = Path('work_dirs/tok')


@pytest.mark.parametrize(
    ('command', 'run', 'lines'),
    [
        ('train', run_of(TOK), ['vq report tok', 'vq train gen photos/ar.py tokenizer=tok']),
        ('train', run_of(TOK, dataset='DigitsDataset'), ['vq report tok', 'vq train tok_ar digits/ar.py tokenizer_run=tok']),
        ('train', run_of(TOK, dataset='MyDataset'), ['vq report tok']),
        (
            'train',
            run_of(TOK, dataset='ImageNetDataset', task=FEATURES),
            ['vq report tok', 'vq train tok_decoder decoder/vqgan.py tokenizer_run=tok'],
        ),
        (
            'tokenize',
            run_of(TOK, dataset='DigitsDataset', task=FEATURES),
            ['vq train tok_decoder digits/decoder.py tokenizer_run=tok'],
        ),
        ('train', run_of(TOK, task=FEATURES), ['vq report tok']),
        ('train', run_of(TOK, tokens=False), ['vq report tok']),  # a KL autoencoder
        ('train', run_of(TOK, 'decoder'), ['vq report tok']),
        ('train', run_of(Path('work_dirs/gen'), 'generator'), ['vq sample gen']),
        ('sample', run_of(Path('work_dirs/gen'), 'generator'), ['vq report gen']),
        ('train', run_of(Path('work_dirs/ic'), 'classifier'), ['vq report ic']),
        ('val', run_of(TOK), ['vq report tok']),
        ('tokenize', run_of(TOK), ['vq train gen photos/ar.py tokenizer=tok']),
        (
            'train',
            run_of(Path('work_dirs/a/my run')),
            ["vq report 'a/my run'", "vq train gen photos/ar.py 'tokenizer=a/my run'"],
        ),
        ('train', run_of(Path('work_dirs/dry_run/tok'), 'generator'), ['vq sample tok']),
        ('val', run_of(Path('elsewhere/tok')), []),
        ('val', Run('a.safetensors', Path('a.safetensors')), []),  # a converted file is no run
    ],
)
def test_what_comes_next(command, run, lines):
    if run.folder is None:
        vars(run)['spec'] = Spec('tokenizer')
    assert after(command, run) == lines


def test_another_folder_of_runs():
    run = run_of(Path('my runs/tok'))
    assert after('train', run, 'my runs') == [
        "vq report 'my runs/tok'",
        "vq train gen photos/ar.py 'tokenizer=my runs/tok' --work-dir 'my runs'",
    ]
    assert after('train', run_of(Path('my runs/gen'), 'generator'), 'my runs') == ["vq sample gen --work-dir 'my runs'"]


def test_the_proposed_name_is_free(tmp_path):
    (tmp_path / 'work_dirs' / 'gen').mkdir(parents=True)
    (tmp_path / 'work_dirs' / 'gen_2').mkdir()
    assert after('tokenize', run_of(TOK)) == ['vq train gen_3 photos/ar.py tokenizer=tok']


def test_nothing_is_said_about_what_is_no_run(capsys):
    say_next_of('val', 'no_such_run')
    assert capsys.readouterr().out == ''


def test_lines_are_aligned_and_of_the_first_rank(capsys, monkeypatch):
    say_next('vq report tok', 'vq train gen photos/ar.py tokenizer=tok')
    assert capsys.readouterr().out == 'next: vq report tok\n      vq train gen photos/ar.py tokenizer=tok\n'
    say_next()
    monkeypatch.setenv('RANK', '1')
    say_next('vq report tok')
    assert capsys.readouterr().out == ''
