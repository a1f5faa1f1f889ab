"""Checkpoints of FSDP runs: the same bits at the same number of ranks, the same values at any, under any strategy."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vq
from tests.ranks import GlooPool
from tests.runners.support import assert_same, everything, logged, samples
from tests.runners.test_evaluation import digests
from tests.runners.test_resume import options
from tests.strategies.fsdp_runs import command, resumed_by, saved_by, write_fsdp_config
from vq.cli import tokenize, val
from vq.core.errors import UserError
from vq.io import checkpoints

pytestmark = pytest.mark.slow

FSDP = dict(strategy='fsdp')
TOTAL = dict(batch_size_in_total=True, start=1, iters=4)


def forget(run: Path, newest: int) -> None:
    """As if the run had been killed between the checkpoint of this step and the next."""
    for path in (run / 'checkpoints').glob('iter_*'):
        if int(path.name.removeprefix('iter_')) > newest:
            shutil.rmtree(path)
    (run / 'checkpoints/latest').write_text(f'iter_{newest}\n')


@pytest.mark.parametrize('start', [5, 1])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, gloo_pool: GlooPool, start: int) -> None:
    """Parts, average, both optimizers, LeCam, running statistics, random streams; the discriminator joins later or not."""
    config = str(write_fsdp_config(tmp_path))
    arguments = options(start=start, **FSDP)
    assert gloo_pool.run(command, str(tmp_path), 'straight', config, *arguments) == [0, 0]
    straight, broken = tmp_path / 'work_dirs/straight', tmp_path / 'work_dirs/broken'
    shutil.copytree(straight, broken)
    forget(broken, 4)
    assert gloo_pool.run(command, str(tmp_path), 'broken', config, '--auto-resume', *arguments) == [0, 0]
    one, other = straight / 'checkpoints/iter_8', broken / 'checkpoints/iter_8'
    assert_same(everything(one), everything(other))
    written = sorted(path.name for path in one.glob('optimizer*'))
    assert written == ['optimizer.json', 'optimizer_0.safetensors', 'optimizer_1.safetensors']
    for name in written:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert logged(straight) == logged(broken)
    for rank in range(2):
        assert samples(straight, rank) == samples(broken, rank)
        assert len(samples(straight, rank)) == 8


@pytest.fixture(scope='module')
def saved(tmp_path_factory: pytest.TempPathFactory, gloo_pool: GlooPool) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Strategy -> a folder with a checkpoint of two ranks, and what the run had then."""
    found = {}
    for strategy in ('fsdp', 'ddp'):
        folder = tmp_path_factory.mktemp(strategy)
        write_fsdp_config(folder)
        first, _ = gloo_pool.run(saved_by, str(folder), dict(TOTAL, strategy=strategy))
        found[strategy] = folder, first
    return found


@pytest.mark.parametrize(
    ('writer', 'reader', 'ranks'),
    [
        ('fsdp', 'fsdp', 2),
        ('fsdp', 'fsdp', 1),
        ('fsdp', 'base', 1),
        ('fsdp', 'ddp', 2),
        ('ddp', 'fsdp', 2),
        ('ddp', 'fsdp', 1),
    ],
)
def test_everything_goes_on_at_any_number_of_ranks(
    saved: dict[str, tuple[Path, dict[str, Any]]],
    gloo_pool: GlooPool,
    writer: str,
    reader: str,
    ranks: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, expected = saved[writer]
    arguments = str(folder), dict(TOTAL, strategy=reader), str(folder / 'run/checkpoints/iter_4')
    answers = gloo_pool.run(resumed_by, *arguments) if ranks == 2 else [resumed_by(*arguments)]
    found = answers[0]
    assert len(expected['optimizers']) > 200
    assert any('discriminator' in name for name in expected['optimizers'])
    for kind in ('model', 'ema', 'optimizers', 'step', 'rates'):
        assert_same(found[kind], expected[kind], kind)
    assert len({name for answer in answers for batch in answer['next'] for name in batch}) == 16
    if ranks == 1:
        assert ('random generators get new seeds' in caplog.text) and (writer == reader or 'under the strategy' in caplog.text)


def test_the_order_of_data_does_not_depend_on_who_resumes(
    saved: dict[str, tuple[Path, dict[str, Any]]], gloo_pool: GlooPool
) -> None:
    folder, _ = saved['fsdp']
    arguments = str(folder), dict(TOTAL, strategy='fsdp'), str(folder / 'run/checkpoints/iter_4')
    alone = resumed_by(*arguments)['next']
    both = gloo_pool.run(resumed_by, *arguments)
    for step in range(2):
        assert sorted(alone[step]) == sorted(name for answer in both for name in answer['next'][step])


def test_weights_are_whole_and_load_anywhere(saved: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    folder, expected = saved['fsdp']
    place = folder / 'run/checkpoints/iter_4'
    assert_same(load_file(place / 'model.safetensors'), expected['model'])
    assert_same(load_file(place / 'ema.safetensors'), expected['ema'])


def test_each_rank_writes_its_part(saved: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    """Neither file has the whole of a convolution's moments, and both are about as large."""
    folder, expected = saved['fsdp']
    place = folder / 'run/checkpoints/iter_4'
    index = json.loads((place / 'optimizer.json').read_text())
    name = 'tokenizer/tokenizer.encoder.levels.0.blocks.0.conv1.weight/exp_avg'
    assert [(part['at'], part['shape'], part['file']) for part in index[name]['parts']] == [
        ([0, 0, 0, 0], [4, 8, 3, 3], 'optimizer_0.safetensors'),
        ([4, 0, 0, 0], [4, 8, 3, 3], 'optimizer_1.safetensors'),
    ]
    key = f'{name}@4,0,0,0'
    assert torch.equal(load_file(place / 'optimizer_1.safetensors')[key], expected['optimizers'][name][4:])
    training = torch.load(place / 'training.pt', weights_only=True)
    left = [v for s in training['optimizers'].values() for state in s['state'].values() for v in state.values()]
    assert max(value.numel() for value in left) <= 32 * 8  # vectors and codes


def refuse(saved_folder: Path, tmp_path: Path, change: Any, pattern: str, **more: Any) -> None:
    shutil.copytree(saved_folder, tmp_path / 'copy')
    place = tmp_path / 'copy/run/checkpoints/iter_4'
    change(place)
    with pytest.raises(UserError, match=pattern):
        resumed_by(str(tmp_path / 'copy'), dict(TOTAL, **FSDP, **more), str(place))


def test_a_damaged_part_is_refused(saved: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    def flip(place: Path) -> None:
        path = place / 'optimizer_1.safetensors'
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)

    refuse(saved['fsdp'][0], tmp_path, flip, 'optimizer_1.safetensors is damaged: its SHA-256')


def test_an_index_that_points_elsewhere_is_refused(
    saved: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def point(place: Path) -> None:
        path = place / 'optimizer.json'
        path.write_text(path.read_text().replace('optimizer_1.safetensors', '../../secret.safeten'))

    monkeypatch.setattr(checkpoints, 'verify_files', lambda *arguments: {})
    monkeypatch.setattr(checkpoints, 'is_complete', lambda path: True)
    refuse(saved['fsdp'][0], tmp_path, point, 'is not a file of this checkpoint')


def test_the_state_of_another_optimizer_is_refused(saved: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    def exchange(place: Path) -> None:
        state = torch.load(place / 'training.pt', weights_only=True)
        state['optimizers']['tokenizer']['kind'] = 'SGD'
        torch.save(state, place / 'training.pt')
        marker = json.loads((place / 'COMPLETE').read_text())
        data = (place / 'training.pt').read_bytes()
        marker['files']['training.pt'] = {'size': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
        (place / 'COMPLETE').write_text(json.dumps(marker))

    refuse(saved['fsdp'][0], tmp_path, exchange, "has the state of SGD, and the optimizer 'tokenizer' is Adam now")


# other commands on such a checkpoint


def validate(folder: str, *arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return val.main(['run', 'fsdp.py', '--again', *arguments])


def write_tokens(folder: str, name: str, *arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return tokenize.main([name, 'fsdp.py', '--load-model-from', 'work_dirs/run', *arguments])


def test_validation_tokens_and_loading_of_an_fsdp_run(
    tmp_path: Path, gloo_pool: GlooPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fsdp_config(tmp_path)
    home = str(tmp_path)
    arguments = options(iters=4, **FSDP)
    assert gloo_pool.run(command, home, 'run', 'fsdp.py', *arguments) == [0, 0]
    results = []
    for run in (lambda *given: gloo_pool.run(validate, home, *given), lambda *given: [validate(home, *given)]):
        strategy = 'fsdp' if not results else 'base'
        assert set(run(*options(strategy=strategy))) == {0}
        found = json.loads((tmp_path / 'work_dirs/run/val/iter_4/results.json').read_text())['results']
        results.append({name: value for name, value in found.items() if name != 'seconds'})
    assert results[0] == {name: pytest.approx(value, rel=1e-6) for name, value in results[1].items()}
    assert results[0]['samples'] == 180

    assert gloo_pool.run(write_tokens, home, 'parts', *options(**FSDP)) == [0, 0]
    assert write_tokens(home, 'whole', *options(strategy='base')) == 0
    one, other = (digests(tmp_path / f'work_dirs/{name}_tokenize/tokens') for name in ('parts', 'whole'))
    assert one == other and len(one) > 1

    monkeypatch.chdir(tmp_path)
    loaded = vq.load('run', weights='model')
    codes = load_file(tmp_path / 'work_dirs/run/checkpoints/iter_4/model.safetensors')['tokenizer.quantizer.codebook.weight']
    assert torch.equal(loaded.model.quantizer.codebook.weight, codes)
    assert loaded.tokenize(torch.zeros(2, 3, 16, 16)).shape == (2, *loaded.token_shape)
