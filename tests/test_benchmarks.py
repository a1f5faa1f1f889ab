"""The benchmarks run, their two sides agree, and their last line is JSON. Times are not tested."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.snippets import ROOT, environment
from tests.warm import programs

SCRIPTS = sorted(path.stem for path in (ROOT / 'benchmarks').glob('[!_]*.py'))


def run(name: str, *arguments: str, once: bool = True) -> dict[str, Any]:
    """The last line of the quick form. ``once``: each side is timed once; how often figures are taken is tested below."""
    script = [programs() / 'python', str(ROOT / 'benchmarks' / f'{name}.py'), '--quick', *(['--once'] if once else [])]
    done = subprocess.run([*script, *arguments], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f'{done.stdout}\n{done.stderr}'
    assert 'equal: ' in done.stdout, 'equality comes before time'
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found['once'] is once
    return found


@pytest.mark.slow
def test_checkpoint_benchmark(tmp_path: Path) -> None:
    found = run('checkpoint', '--folder', str(tmp_path))
    assert found['benchmark'] == 'checkpoint' and found['quick'] and found['equal']
    assert found['bytes']['ours'] >= 40e6, 'the state is written whole'
    assert all(figures['repeats'] == 1 for what in ('save', 'load') for figures in found[what].values())
    assert found['machine']['versions']['torch'] and found['machine']['load_before']
    assert not list(tmp_path.iterdir()), 'nothing is left behind'


@pytest.mark.slow
def test_loading_benchmark_sees_the_same_pixels(tmp_path: Path) -> None:
    found = run('loading', '--folder', str(tmp_path))
    assert found['missed'] == [] and found['decode_only'].keys() == {'files', 'packed JPEG'}
    assert found['packed JPEG of its roof']['pairs'] == 1 and found['packed JPEG of its roof']['share'] > 0
    for what in ('1 worker, uint8', '1 worker, float'):
        names = ' '.join(found[what])
        assert all(name in names for name in ('ImageFolder', 'packed raw', 'packed JPEG (simplejpeg)', 'folder (Pillow)'))
        assert all(side['images_per_second'] > 0 for side in found[what].values())


@pytest.mark.slow
def test_code_search_benchmark_sees_the_same_codes() -> None:
    found = run('code_search')
    assert set(found['shapes']) == {'N512_K16384_D8', 'N512_K16384_D256', 'N64_K262144_D8'}
    for figures in found['shapes'].values():
        sides = {name: side for name, side in figures.items() if isinstance(side, dict)}
        assert {'ours: nearest_code', 'textbook', 'addmm, argmin', 'cdist, argmin', 'matrix product alone'} <= set(sides)
        assert all(side['repeats'] == 1 for side in sides.values())
        assert figures['memory_kept'] in (True, None), 'ours takes at most 16 MB'


@pytest.mark.slow
def test_token_shard_benchmark_sees_the_same_tokens() -> None:
    found = run('token_shards')
    for what in ('feeding', 'whole step'):
        assert all(found[what][side]['repeats'] == 1 for side in ('shards', 'images'))
    assert found['batch'] == 64


@pytest.mark.slow
def test_shard_check_benchmark_checks_each_shard_once() -> None:
    found = run('shard_checks')
    assert set(found) >= {'0 workers', '2 workers'}
    assert all(found[side]['sha256'] > 0 for side in ('0 workers', '2 workers'))


@pytest.mark.slow
def test_runner_benchmark_sees_equal_bits() -> None:
    found = run('runner', '--width', '4', '--seconds', '0.1')
    assert found['whole']['ours']['repeats'] >= 7
    assert set(found['whole']) >= {'overhead_cpu', 'overhead_wall'} and len(found['breakdown']) >= 5


@pytest.mark.slow
def test_training_step_benchmark_sees_equal_steps() -> None:
    found = run('train_step', '--width', '8')
    for label in ('without LPIPS', 'with LPIPS'):
        assert set(found[label]) == {'ours: one forward', 'two forwards', 'roof: networks only', 'parts'}
        assert found[label]['ours: one forward']['times_ours'] == 1.0
    assert 'LPIPS forward and backward' in found['with LPIPS']['parts']


@pytest.mark.slow
def test_step_of_vqkd_has_the_losses_of_its_parts() -> None:
    pytest.importorskip('transformers')
    found = run('train_step', '--vqkd', once=False)['vqkd']
    assert 0 < found['teacher']['share'] < 1 and 0 < found['teacher_share_of_operations'] < 1
    assert found['step']['share'] == 1.0 and 'encoder, forward and backward' in found


@pytest.mark.slow
def test_fid_benchmark_sees_equal_features_statistics_and_distances() -> None:
    for package in ('pytorch_fid', 'torch_fidelity', 'torchmetrics'):
        pytest.importorskip(package)
    found = run('fid')
    peers = {'pytorch-fid', 'torch-fidelity', 'torchmetrics'}
    assert peers < set(found['forward']['sides']) and 0 < found['forward']['bf16_error'] < 3e-2
    for part in ('forward', 'statistics', 'distance'):
        assert all(figures['repeats'] == 1 for figures in found[part]['sides'].values())
    first, second = found['memory']['mb']['ours']
    assert first is None or second < 2 * first + 16, 'four times the rows do not take four times the memory'


@pytest.mark.slow
def test_quantizer_benchmark_compares_one_recipe(tmp_path: Path) -> None:
    found = run('quantizers', '--only', 'fsq', '--work-dir', str(tmp_path))
    assert found['fsq']['bits'] == 16 * 8 and 0 < found['fsq']['codebook_usage'] <= 1
    assert found['fsq']['steps_per_second'] > 0
    assert (tmp_path / 'quantizers.png').is_file()


@pytest.mark.slow
def test_sampler_benchmark_finds_orders_and_draws_them(tmp_path: Path) -> None:
    found = run('samplers', '--picture', str(tmp_path / 'samplers.png'))
    assert set(found['errors']) == {'FlowPath', 'CosinePath', 'BetaPath'}
    assert (tmp_path / 'samplers.png').stat().st_size > 10_000
    for path, errors in found['errors'].items():
        assert 0.8 < found['orders'][path]['Euler'] == found['orders'][path]['DDIM'] < 1.1
        assert max(errors[name][-1][1] for name in ('Heun', 'PLMS', 'DPMSolver')) < errors['Euler'][-1][1] / 4


@pytest.mark.slow
def test_sampling_benchmark_sees_equal_tokens() -> None:
    pytest.importorskip('transformers')
    found = run('sampling', '--codes', '100')
    one, eight = found['rows']['batch 1, 100 codes'], found['rows']['batch 8 with guidance, 100 codes']
    assert set(one['sides']) >= {'ours', 'HF, dynamic cache', 'HF, static cache', 'memory alone'}
    assert set(eight['sides']) >= {'ours', 'HF, guidance_scale=', 'HF, static cache, doubled batch', 'matrix products alone'}
    assert all(side['repeats'] == 1 for row in (one, eight) for side in row['sides'].values())
    assert found['uncached']['times_ours'] > 0
    assert one['sides']['ours']['times_ours'] == 1.0 and one['goal'] == 1.7 and eight['goal'] == 1.3


@pytest.mark.slow
def test_diffusion_benchmark_sees_equal_steps_and_latents(tmp_path: Path) -> None:
    pytest.importorskip('diffusers')
    output = tmp_path / 'diffusion.json'
    found = run('diffusion', '--output', str(output))
    assert json.loads(output.read_text()) == found
    training, sampling = found['rows'].values()
    assert (training['aim'], sampling['aim']) == (1.0, 1.15)
    for row in (training, sampling):
        assert set(row['sides']) == {'ours', 'diffusers', 'plain'} and row['sides']['ours']['times_ours'] == 1.0
        assert row['faster_cpu'] == min(row['sides'][name]['cpu_times_ours'] for name in ('diffusers', 'plain'))
    assert max(next(iter(found['equality'].values())).values()) < 1e-3
    assert found['latents']['share'] < 1 and set(found['latents']['sides']) == {'cached', 'on the fly'}


@pytest.mark.slow
def test_energy_benchmark_sees_equal_gradients_and_measures_time_and_memory() -> None:
    found = run('diffusion', '--energy')
    (row,), (equal,), (memory,) = (list(found[name].values()) for name in ('rows', 'equality', 'memory'))
    assert set(equal) == {'mean_then_head', 'head_then_mean', 'dot'} and max(equal.values()) < 1e-3
    assert set(row['sides']) == {'plain', *equal, 'mean_then_head, derivatives of torch'}
    assert row['aim'] == 2.5 and row['sides']['plain']['times_plain'] == 1.0
    kept, again = memory['4 inner steps that are kept'], memory['4 inner steps that run again']
    assert kept is None or again < kept


@pytest.mark.slow
def test_digits_benchmark_measures_new_and_real_digits_alike(tmp_path: Path) -> None:
    found = run('digits_diffusion', '--only', 'cached', '--work-dir', str(tmp_path))
    row, real = found['ways']['cached']['3407'], found['held_out_digits']
    assert row['seconds']['cpu'] > 0 and set(row['guided']) == set(row['unguided']) == set(real)
    assert real['within'] == 1 and 0 <= row['guided']['agreement'] <= 1 and row['guided']['fd'] > real['fd'] > 0
    assert found['worst']['cached']['guided within'] == row['guided']['within']


def test_every_benchmark_is_described() -> None:
    page = (ROOT / 'benchmarks' / 'README.md').read_text()
    assert SCRIPTS
    for name in SCRIPTS:
        helpers = (ROOT / 'benchmarks').glob(f'_{name}_*.py')
        text = '\n'.join(path.read_text() for path in [ROOT / 'benchmarks' / f'{name}.py', *helpers])
        assert f'benchmarks/{name}.py' in page, f'benchmarks/README.md does not mention {name}.py'
        assert f'python benchmarks/{name}.py --quick' in text and 'must_be_equal(' in text and 'finish(' in text


def test_unequal_sides_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import _common

    with pytest.raises(SystemExit, match='nothing was timed'):
        _common.must_be_equal('two things', False)


def test_medians_have_seven_repetitions_and_ratios_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import _common

    with pytest.raises(ValueError, match='at least 7'):
        _common.in_turns({'one': lambda: None}, repeats=3)
    calls: list[str] = []
    times = _common.in_turns({'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')}, repeats=8, warmup=0)
    assert ''.join(calls) == 'abba' * 4, 'in turns, each side first as often as the other'
    assert len(times['a'].wall) == len(times['b'].cpu) == 8
    # if the machine becomes three times slower halfway, both sides are affected alike
    assert _common.paired_ratio([2.0, 2.0, 6.0], [1.0, 1.0, 3.0]) == 2.0


@pytest.mark.slow
def test_six_kills_resume_to_the_same_bytes() -> None:
    found = run('faults', '--python', str(programs() / 'python'))['faults']
    assert found and all(same == count for same, count, _ in found.values())
    assert sum(count for _, count, _ in found.values()) == 6 and sum(hit for _, _, hit in found.values()) >= 3
