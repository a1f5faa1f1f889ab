"""The resolver of runs: names mean the same for all commands. And the spec of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vq.assembly.compose import find_config
from vq.core import config_json
from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.core.trust import Untrusted
from vq.io import runs
from vq.io.checkpoints import Checkpoint, save
from vq.io.runs import find, weight_files
from vq.io.spec import LatentSpec, Spec, TokenSpec
from vq.io.weights import read_weights

CONFIG = {'trainer': {'model': {'type': 'ImageTokenization', 'tokenizer': {'levels': (1, 2)}}}}
LATENT = LatentSpec(4, (2, 3))
SPEC = Spec('tokenizer', (32, 48), {'range': [-1.0, 1.0]}, {'dataset': 'digits'}, TokenSpec((2, 3), (8,)), LATENT)


def write(folder: Path, step: int = 5, ema: bool = False, config: Any = CONFIG, spec: Spec | None = SPEC) -> Path:
    weights = {'w': torch.full((2,), float(step))}
    text = config_json.dumps(config)
    described = None if spec is None else spec.as_json()
    return save(
        folder / 'checkpoints',
        Checkpoint(step=step, model=weights, ema=weights if ema else None, config_text=text, spec=described),
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """``work_dirs/mine/a`` with two checkpoints, the later one with an average; a file here and one below ``pretrained``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('VQ_PRETRAINED', raising=False)
    monkeypatch.delenv('DRY_RUN', raising=False)
    write(Path('work_dirs/mine/a'), 5)
    write(Path('work_dirs/mine/a'), 10, ema=True)
    for name in ('here.safetensors', 'pretrained/there.safetensors'):
        Path(name).parent.mkdir(exist_ok=True)
        save_file({'w': torch.zeros(1)}, name)
    return tmp_path


@pytest.mark.parametrize(
    ('name', 'file'),
    [
        ('mine/a', 'work_dirs/mine/a/checkpoints/iter_10/ema.safetensors'),
        ('work_dirs/mine/a', 'work_dirs/mine/a/checkpoints/iter_10/ema.safetensors'),
        ('./work_dirs/mine/a', 'work_dirs/mine/a/checkpoints/iter_10/ema.safetensors'),
        ('work_dirs/mine/a/checkpoints', 'work_dirs/mine/a/checkpoints/iter_10/ema.safetensors'),
        ('work_dirs/mine/a/checkpoints/iter_5', 'work_dirs/mine/a/checkpoints/iter_5/model.safetensors'),
        ('mine/a/checkpoints/iter_5', 'work_dirs/mine/a/checkpoints/iter_5/model.safetensors'),
        ('mine/a/checkpoints/iter_10/model.pth', 'work_dirs/mine/a/checkpoints/iter_10/model.safetensors'),
        ('here.safetensors', 'here.safetensors'),
        ('here.ckpt', 'here.safetensors'),
        ('there.safetensors', 'pretrained/there.safetensors'),
        ('there.pth', 'pretrained/there.safetensors'),
    ],
)
def test_what_is_found(home: Path, name: str, file: str) -> None:
    assert find(name).file() == Path(file) and weight_files(name) == [Path(file)]
    assert read_weights(name)[1].path == Path(file)
    assert find(home / file).file() == home / file


def test_a_dry_run_stands_in_for_steps_it_does_not_have(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """``iter_7`` of a dry run of 8 steps: its latest checkpoint, said when it is read. Not of other runs, nor outside."""
    write(Path('work_dirs/dry_run/a'), 8, ema=True)
    place = 'work_dirs/dry_run/a/checkpoints'
    monkeypatch.setenv('DRY_RUN', 'True')
    for name, file in (
        (f'{place}/iter_7/model.pth', f'{place}/iter_8/model.safetensors'),
        (f'{place}/iter_7', f'{place}/iter_8/ema.safetensors'),
        ('a/checkpoints/iter_7', f'{place}/iter_8/ema.safetensors'),
    ):
        assert find(name).file() == Path(file) and runs.taken(name) == str(find(name).weights)
        assert find(runs.taken(name)).file() == Path(file)
        caplog.clear()
        assert read_weights(name)[1].path == Path(file)
        assert f'{place}/iter_7 is not one of the few checkpoints of a dry run; {place}/iter_8 is taken' in caplog.text
    refused = ('work_dirs/mine/a/checkpoints/iter_7/model.pth', f'{place}/iter_7/other.pth', f'{place}/iter_x')
    for name in (*refused, 'work_dirs/dry_run/b/checkpoints/iter_7'):
        with pytest.raises(UserError, match='no run, checkpoint or file'):
            find(name)
    monkeypatch.delenv('DRY_RUN')
    with pytest.raises(UserError, match='no run, checkpoint or file'):
        find(f'{place}/iter_7/model.pth')


def test_what_is_not_there(home: Path) -> None:
    with pytest.raises(UserError, match=r"no run, checkpoint or file 'mine/b'.*mine/a") as caught:
        find('mine/b')
    assert 'mine/a' in caught.value.hint and 'taming-f16-1024' in caught.value.hint
    with pytest.raises(UserError, match=r"did you mean 'here\.safetensors'"):
        find('./heer.safetensors')
    Path('work_dirs/empty').mkdir()
    with pytest.raises(UserError, match='work_dirs/empty has no complete checkpoint'):
        find('empty')
    (home / 'work_dirs/mine/a/checkpoints/iter_5/COMPLETE').unlink()
    with pytest.raises(UserError, match='iter_5 is not a complete checkpoint'):
        find('mine/a/checkpoints/iter_5')
    assert weight_files(None) == [] and weight_files('mine/b') == [Path('mine/b')]
    with pytest.raises(UserError, match=r"'taming-f16-1024'.* is not there yet") as caught:
        find('taming-f16-1024')
    assert 'vq.tools.prepare_checkpoints taming-f16-1024' in caught.value.hint
    with pytest.raises(UserError, match="'lpips' is not a tokenizer"):
        find('lpips')


def test_a_published_name_is_the_converted_file(home: Path) -> None:
    file = home / 'pretrained/taming/vqgan_imagenet_f16_1024.ckpt.converted'
    file.parent.mkdir()
    save_file({'w': torch.zeros(1)}, file)
    assert find('taming-f16-1024').weights == Path('pretrained/taming/vqgan_imagenet_f16_1024.ckpt.converted')
    write(Path('work_dirs/taming-f16-1024'))
    assert find('taming-f16-1024').folder == Path('work_dirs/taming-f16-1024')  # a run of this name comes first


def test_a_folder_here_never_stands_for_a_run_of_the_same_name(home: Path) -> None:
    write(Path('work_dirs/b'), 1)
    write(Path('b'), 2)
    assert find('b').checkpoint == Path('work_dirs/b/checkpoints/iter_1')
    assert find('./b').checkpoint == Path('b/checkpoints/iter_2')
    Path('mine/a').mkdir(parents=True)  # has no trained weights
    assert find('mine/a').folder == Path('work_dirs/mine/a')
    write(Path('mine/a'), 2)
    with pytest.raises(UserError, match="'mine/a' is a run here and in work_dirs") as caught:
        find('mine/a')
    assert caught.value.hint == 'Write ./mine/a or work_dirs/mine/a.'
    assert find('./mine/a').checkpoint == Path('mine/a/checkpoints/iter_2')
    assert find('work_dirs/mine/a').checkpoint == Path('work_dirs/mine/a/checkpoints/iter_10')


ASKERS: dict[str, Callable[[str], Any]] = {
    'find': lambda name: find(name).weights,
    'read_weights': lambda name: read_weights(name)[1].path,
    'weight_files': lambda name: weight_files(name)[0],
    'load_model_from': lambda name: __import__('vq.assembly.frozen_weights', fromlist=['x'])._holds(name, ['w']),
    'results': lambda name: __import__('vq.cli.results', fromlist=['x']).identity(name),
}


@pytest.mark.parametrize('dry', [False, True])
def test_a_dry_run_is_found_by_all_alike(home: Path, monkeypatch: pytest.MonkeyPatch, dry: bool) -> None:
    if dry:
        monkeypatch.setenv('DRY_RUN', 'True')
    write(Path('work_dirs/dry_run/tk'), 1)
    for ask in ASKERS.values():
        assert ask('tk')
    assert find('tk').folder == Path('work_dirs/dry_run/tk') == find('dry_run/tk').folder
    write(Path('work_dirs/tk'), 2)  # each comes first among its own
    expected = Path('work_dirs/dry_run/tk' if dry else 'work_dirs/tk')
    assert find('tk').folder == expected
    for ask in ('read_weights', 'weight_files'):
        assert ASKERS[ask]('tk').parents[2] == expected


def test_another_work_dir(home: Path) -> None:
    write(home / 'elsewhere/x', 3)
    assert find('x', 'elsewhere').checkpoint == Path('elsewhere/x/checkpoints/iter_3')
    with pytest.raises(UserError, match='no run'):
        find('x')


def test_what_a_run_says_of_itself(home: Path) -> None:
    run = find('mine/a')
    assert (run.name, run.folder, run.weights) == ('mine/a', Path('work_dirs/mine/a'), run.checkpoint)
    assert run.config == CONFIG and type(run.config) is dict and run.model['tokenizer']['levels'] == (1, 2)
    assert run.spec == SPEC and run.custom_imports == ()
    assert run.describe() == ('tokenizer work_dirs/mine/a/checkpoints/iter_10: 32 x 48 pixels, 2 x 3 tokens of 8 codes')
    assert run.file('model').name == 'model.safetensors'
    with pytest.raises(UserError, match='iter_5 has no ema weights'):
        find('mine/a/checkpoints/iter_5').file('ema')
    named = find('mine/a/checkpoints/iter_5/model.safetensors')
    assert named.config == CONFIG and named.checkpoint == Path('work_dirs/mine/a/checkpoints/iter_5')


def test_the_config_of_a_run_is_a_config(home: Path) -> None:
    assert PyConfig.load(find_config('work_dirs/mine/a')) == CONFIG
    assert PyConfig.load(find_config('work_dirs/mine/a/checkpoints/iter_5')) == CONFIG
    assert find_config('digits/vq_ema.py') == 'digits/vq_ema.py'
    Path('weights').mkdir()
    save_file({'w': torch.zeros(1)}, 'weights/model.safetensors')
    with pytest.raises(UserError, match='weights is a folder, but not a run with a config'):
        find_config('weights')


def make_older(checkpoint: Path, text: str) -> None:
    """Turn a checkpoint into one of version 0.1: its config is Python text, and it has no spec."""
    for name in ('config.json', 'spec.json'):
        (checkpoint / name).unlink()
    (checkpoint / 'config.py').write_text(text)
    marker = json.loads((checkpoint / 'COMPLETE').read_text())
    marker['files'] = {name: entry for name, entry in marker['files'].items() if (checkpoint / name).is_file()}
    (checkpoint / 'COMPLETE').write_text(json.dumps(marker))


def test_older_runs_are_read_without_executing_them(home: Path) -> None:
    config = {
        'trainer': {
            'dataset': {'type': 'ImageNetDataset', 'split': 'train', 'transform': {'image_size': 64}},
            **CONFIG['trainer'],
        }
    }
    checkpoint = write(Path('work_dirs/old'), 7)
    make_older(checkpoint, PyConfig(config).dumps())
    run = find('old')
    assert run.config == config and type(run.config['trainer']) is dict
    assert run.spec.kind == 'tokenizer' and run.spec.image == (64, 64)
    assert run.spec.trained_on == {'dataset': 'ImageNetDataset', 'split': 'train'}
    make_older(write(Path('work_dirs/evil'), 7), "trainer = dict(iters=len(str(open('gone', 'w'))))")
    with pytest.raises(Untrusted, match=r"config\.py:1: it calls 'open'.*executed"):
        assert find('evil').config
    assert not Path('gone').exists()
    assert find('evil', trust=True).config['trainer']['iters'] > 0 and Path('gone').exists()


def test_modules_that_a_run_names_need_trust(home: Path) -> None:
    write(Path('work_dirs/x'), config={**CONFIG, 'custom_imports': ['a_module_of_nobody', 'os']})
    with pytest.raises(Untrusted, match=r"the run 'x' names modules .*: a_module_of_nobody\n"):
        assert find('x').custom_imports
    assert find('x', trust=True).custom_imports == ('a_module_of_nobody', 'os')
    assert find('x').config['custom_imports'] == ['a_module_of_nobody', 'os']  # it is data all the same


@pytest.mark.slow
def test_recipes_may_import_it_without_torch() -> None:
    done = subprocess.run([sys.executable, '-c', 'import sys, vq.io.runs; sys.exit("torch" in sys.modules)'])
    assert done.returncode == 0


def test_a_damaged_config_or_spec_is_said(home: Path) -> None:
    checkpoint = write(Path('work_dirs/x'))
    for name in (runs.CONFIG, 'spec.json'):
        text = (checkpoint / name).read_text()
        (checkpoint / name).write_text('{"version": ' + ' ' * (len(text) - 13) + '}')  # the size stays
        with pytest.raises(UserError, match=name):
            assert find('x').config and find('x').spec
        (checkpoint / name).write_text(text)
    make_older(checkpoint, 'trainer = dict(dataset=3, model=4)')
    with pytest.raises(UserError, match=r'config of .* is damaged'):
        assert find('x').spec
