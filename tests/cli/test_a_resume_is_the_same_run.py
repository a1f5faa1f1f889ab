"""A resume with other settings than the run's is refused with a table of them, unless --change is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.runs_of_commands import everything_in, finished, home  # noqa: F401
from tests.ranks import GlooPool
from tests.runners.support import commands_here, said_by
from tests.runners.support import train as train_in
from vq.assembly import same_run
from vq.assembly.compose import compose
from vq.cli import train

RESUME = ('run', 'tiny.py', '--auto-resume', '--config-options', 'iters:4', 'save_every:2')
LAST = Path('work_dirs/run/checkpoints/iter_4')

DIFFERENCES: dict[str, tuple[tuple[str, ...], str]] = {
    'seed': (('--seed', '5'), 'seed: 3407 -> 5'),
    'learning rate': (('--override', '.trainer.optimizers.tokenizer.lr:0.5'), 'trainer.optimizers.tokenizer.lr: 0.002 -> 0.5'),
    'image size': (('--override', '.trainer.dataset.image_size:48'), 'trainer.dataset.image_size: 32 -> 48'),
    'dataset': (
        ('--override', '.trainer.dataset:dict(type="FolderDataset", root="photos", split="train")'),
        "trainer.dataset.type: 'DigitsDataset' -> 'FolderDataset'",
    ),
    'batch': (
        ('--override', '.trainer.dataloader.batch_size:16'),
        'samples per step (batch_size x ranks x accumulate): 8 = 8 x 1 x 1 -> 16 = 16 x 1 x 1',
    ),
    'precision': (('--autocast',), "trainer.strategy.precision: 'fp32' -> 'bf16'"),
    'a default': (
        ('--override', '.trainer.model.tokenizer.encoder.residual_blocks:2'),
        'trainer.model.tokenizer.encoder.residual_blocks: ',
    ),
    'fewer steps': (('--override', '.trainer.iters:3'), 'trainer.iters: 4 -> 3'),
    'a step setting': (
        ('--override', '.trainer.optimizers.tokenizer.clip:None'),
        'trainer.optimizers.tokenizer.clip: 1.0 -> None',
    ),
}
FREE = {
    'nothing': (),
    'callbacks': ('--override', '.trainer.callbacks.ema:None', '.trainer.callbacks[-1].interval:3'),
    'the validator': ('--override', '.validator.dataset.split::test', '.validator.metrics:{}'),
    'more steps': ('--override', '.trainer.iters:6'),
    'workers': ('--override', '.trainer.dataloader.num_workers:2', '.trainer.dataloader.prefetch:1'),
    'device': ('--override', '.trainer.strategy.device::cpu'),
    'strategy': ('--override', '.trainer.strategy.type::DDPStrategy'),
    'the same batch': ('--override', '.trainer.dataloader.batch_size:4', '.trainer.strategy.accumulate:2'),
    'weights': ('--load-model-from', 'run'),
}


@pytest.mark.parametrize('what', DIFFERENCES)
def test_a_difference_needs_change_and_a_refusal_changes_nothing(home: Path, capsys: Any, what: str) -> None:  # noqa: F811
    words, row = DIFFERENCES[what]
    before = everything_in(home)
    said = said_by(capsys, train.main, *RESUME, *words, code=2)
    assert said.splitlines()[0] == 'error: the run work_dirs/run has other settings than this command:'
    assert row in ' '.join(said.split()), said
    assert '--change' in said.splitlines()[-1]
    assert everything_in(home) == before


@pytest.mark.parametrize('what', FREE)
def test_what_is_free_needs_no_change(home: Path, monkeypatch: Any, what: str) -> None:  # noqa: F811
    options = train.make_parser().parse_args([*RESUME, *FREE[what]])
    config = compose(options.config, options.config_options, options.override, options.autocast)
    assert same_run.find_differences(LAST, config, options.seed) == []


def test_ranks_are_free_at_an_equal_total_batch(home: Path, monkeypatch: Any) -> None:  # noqa: F811
    monkeypatch.setenv('WORLD_SIZE', '2')
    ddp = {'.trainer.strategy.type': 'DDPStrategy'}
    for batch, rows in ((4, 0), (8, 1)):
        config = compose('tiny.py', {'iters': 4}, {**ddp, '.trainer.dataloader.batch_size': batch})
        assert len(same_run.find_differences(LAST, config, 3407) or []) == rows
    config = compose('tiny.py', {'iters': 4}, {**ddp, '.trainer.dataloader.batch_size_in_total': True})
    assert same_run.find_differences(LAST, config, 3407) == []


def test_changes_are_told_and_made(home: Path, capsys: Any) -> None:  # noqa: F811
    faster = ('--override', '.trainer.optimizers.tokenizer.lr:0.01', '.trainer.iters:5')
    said = said_by(capsys, train.main, *RESUME, '--change', *faster)
    assert 'from here on the run has other settings:' in said.splitlines()[0]
    assert said.splitlines()[1] == '  trainer.optimizers.tokenizer.lr: 0.002 -> 0.01'
    kept = json.loads((home / 'work_dirs/run/tiny.json').read_text())
    assert kept['trainer']['optimizers']['tokenizer']['lr'] == 0.01
    assert 'other settings' in said_by(capsys, train.main, *RESUME, code=2)


def test_the_config_of_the_run_is_written_after_every_check(home: Path, capsys: Any) -> None:  # noqa: F811
    """The architecture is compared when the state is restored."""
    before = (home / 'work_dirs/run/tiny.json').read_bytes()
    wider = ('--override', '.trainer.model.tokenizer.encoder.width:16')
    assert 'another architecture' in said_by(capsys, train.main, *RESUME, '--change', *wider, code=2)
    assert (home / 'work_dirs/run/tiny.json').read_bytes() == before


TOKENIZER = 'cvqvae/8192_dd2_aglwg075_imagenet_ddp'
DECODER = 'decoder/vqgan/cvqvae_8192_imagenet_ddp/vqgan_8192_dd2_aglwg075_imagenet_ddp'
LENIENT = ('--override', '.trainer.callbacks[-1].load_state_dict:dict(strict=False)')
PRINTED: dict[str, tuple[str, ...]] = {
    TOKENIZER: (f'configs/{TOKENIZER}.py',),
    DECODER: (
        'configs/decoder/vqgan.py',
        *('--config-options', f'it_config::configs/{TOKENIZER}.py'),
        *('--load-model-from', f'work_dirs/dry_run/{TOKENIZER}/checkpoints/iter_8/model.pth'),
    ),
    'ar/c2i_llama_medium_cfg_imagenet_ddp': (
        'configs/ar/c2i_llama_medium_cfg_imagenet_ddp.py',
        '--config-options',
        f'ir_config::work_dirs/dry_run/{DECODER}/vqgan.py',
        f'it_state_dict::work_dirs/dry_run/{TOKENIZER}/checkpoints/iter_8/model.pth',
        f'ir_state_dict::work_dirs/dry_run/{DECODER}/checkpoints/iter_8/model.pth',
    ),
}


@pytest.mark.slow
def test_printed_commands_resume_without_change(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """In their tiny forms: each command, killed after step 4, and again with --auto-resume; of the decoder leniently."""
    monkeypatch.chdir(tmp_path)
    with commands_here():
        for name, words in PRINTED.items():
            said_by(capsys, train.main, name, *words)
            checkpoints = tmp_path / 'work_dirs/dry_run' / name / 'checkpoints'
            first = (checkpoints / 'iter_8/model.safetensors').read_bytes()
            shutil.move(checkpoints / 'iter_8', tmp_path / 'last')
            (checkpoints / 'latest').write_text('iter_4\n')
            said = said_by(capsys, train.main, name, *words, '--auto-resume', *(LENIENT if name == DECODER else ()))
            assert 'at step 4' in said and 'settings' not in said
            assert (checkpoints / 'iter_8/model.safetensors').read_bytes() == first
            shutil.rmtree(tmp_path / 'last')


@pytest.mark.slow
def test_other_ranks_resume_at_an_equal_total_batch(home: Path, gloo_pool: GlooPool) -> None:  # noqa: F811
    """With bf16 and two ranks: the precision is that of the run, so it is a difference, and half the batch a rank is none."""
    words = ('run', 'tiny.py', '--auto-resume', '--config-options', 'iters:6', 'save_every:2', 'strategy::ddp')
    half = ('--override', '.trainer.dataloader.batch_size:4')
    assert gloo_pool.run(train_in, str(home), *words, *half, '--autocast')[0] == 2
    assert gloo_pool.run(train_in, str(home), *words, *half) == [0, 0]
    assert (home / 'work_dirs/run/checkpoints/iter_6/COMPLETE').exists()
