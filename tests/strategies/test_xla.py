"""XLA on the CPU against the CPU itself, with one device and with two; processes of their own (see xla_runs.py)."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.runners.support import REPOSITORY, assert_same, everything
from tests.strategies import xla_runs
from vq.core.errors import ConfigError
from vq.strategies.xla import XLAStrategy

ITERS = 5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xla,
    pytest.mark.skipif(importlib.util.find_spec('torch_xla') is None, reason='torch_xla is not installed: make test-xla'),
]


class Process:
    """A run of xla_runs.py beside this process: compiling is what these tests spend their time on."""

    def __init__(self, *arguments: object, devices: int = 1) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(('XLA_', 'PJRT_', 'PT_XLA'))}
        environment |= {'PJRT_DEVICE': 'CPU', 'CPU_NUM_DEVICES': str(devices), 'PYTHONPATH': str(REPOSITORY)}
        environment |= {'OMP_NUM_THREADS': '1', 'XLA_FLAGS': '--xla_backend_optimization_level=0'}
        command = [sys.executable, '-m', 'tests.strategies.xla_runs', *map(str, arguments)]
        self.process = subprocess.Popen(
            command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        # its output is read while it runs, or it would wait for room in the pipe
        self.output = ThreadPoolExecutor(1).submit(self.process.communicate)

    @functools.cached_property
    def found(self) -> Any:
        output, errors = self.output.result(timeout=600)
        assert self.process.returncode == 0, errors[-3000:]
        return json.loads(output.strip().splitlines()[-1])


@pytest.fixture(scope='module')
def cpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp('cpu')
    return {'folder': folder, **xla_runs.train(folder, 'base')}


@pytest.fixture(scope='module')
def processes(tmp_path_factory: pytest.TempPathFactory, cpu: dict[str, Any]) -> Iterator[dict[str, tuple[Path, Process]]]:
    one, two, options = (tmp_path_factory.mktemp(name) for name in ('one', 'two', 'options'))
    started = {
        'one_device': (one, Process('whole', one, cpu['folder'] / 'run/checkpoints/iter_3')),
        'two_devices': (two, Process('several', two, devices=2)),
        'options': (options, Process('options', options, devices=2)),
    }
    yield started
    for _, process in started.values():
        process.process.kill()


@pytest.fixture(scope='module')
def one_device(processes: dict[str, tuple[Path, Process]]) -> dict[str, Any]:
    folder, process = processes['one_device']
    return {'folder': folder, **process.found}


@pytest.fixture(scope='module')
def two_devices(processes: dict[str, tuple[Path, Process]]) -> dict[str, Any]:
    folder, process = processes['two_devices']
    return {'folder': folder, **process.found}


def assert_close(first: Path, second: Path) -> None:
    """Weights and their average in two checkpoints."""
    for name in ('model', 'ema'):
        ours, theirs = (load_file(path / f'{name}.safetensors') for path in (first, second))
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert (ours[key].double() - theirs[key].double()).abs().max() < 1e-4, key


def assert_compiles_nothing_late(found: dict[str, Any]) -> None:
    compiled = found['compiled']
    assert compiled[2] == compiled[-1], f'programs after each step: {compiled}'
    assert compiled[2] > 0
    unsupported = {name for seen in found['on_host'] for name in seen} - {'aten::_local_scalar_dense'}
    assert not unsupported, 'computed on the host'


def reads(found: dict[str, Any]) -> list[int]:
    """How many numbers were read by the host, by the end of each step."""
    return [seen.get('aten::_local_scalar_dense', 0) for seen in found['on_host']]


@pytest.mark.parametrize('devices', ['one_device', 'two_devices'])
def test_adversarial_steps_are_those_of_the_cpu(devices: str, cpu: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """EMA codebook with restarts, R1 every second step, LeCam, batch norm, adaptive weight, ramp, schedule, averages."""
    found = request.getfixturevalue(devices)['straight']
    assert len(found['losses']) == 2 * ITERS
    assert found['losses'] == pytest.approx(cpu['losses'], rel=1e-4)
    folder = request.getfixturevalue(devices)['folder']
    place = folder / 'straight' if devices == 'one_device' else folder
    assert_close(place / 'run/checkpoints/iter_5', cpu['folder'] / 'run/checkpoints/iter_5')
    assert_compiles_nothing_late(found)
    # the config logs after step 3 and at the end, and writes checkpoints then: no other step reads a thing
    assert reads(found)[:2] == [0, 0]
    assert reads(found)[3] == reads(found)[2]


def test_a_resumed_run_ends_with_the_same_bits(one_device: dict[str, Any]) -> None:
    straight, resumed = (one_device['folder'] / name / 'run/checkpoints/iter_5' for name in ('straight', 'resumed'))
    assert_same(everything(straight), everything(resumed))
    assert one_device['resumed']['losses'] == one_device['straight']['losses'][6:]


def test_checkpoints_go_from_xla_to_the_cpu_and_back(one_device: dict[str, Any], cpu: dict[str, Any], tmp_path: Path) -> None:
    theirs = cpu['folder'] / 'run/checkpoints/iter_5'
    assert one_device['from_cpu']['losses'] == pytest.approx(cpu['losses'][6:], rel=1e-4)
    assert_close(one_device['folder'] / 'from_cpu/run/checkpoints/iter_5', theirs)
    start = one_device['folder'] / 'straight/run/checkpoints/iter_3'
    assert xla_runs.train(tmp_path, 'base', start_from=str(start))['losses'] == pytest.approx(cpu['losses'][6:], rel=1e-4)
    assert_close(tmp_path / 'run/checkpoints/iter_5', theirs)


@pytest.mark.parametrize('devices', ['one_device', 'two_devices'])
def test_evaluation_is_that_of_the_cpu(devices: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """20 samples in batches of 8: the last one is smaller. A second pass compiles nothing, on one device."""
    run_of = request.getfixturevalue(devices)
    place = run_of['folder'] / 'straight' if devices == 'one_device' else run_of['folder']
    expected = xla_runs.evaluate(tmp_path, 'base', str(place / 'run/checkpoints/iter_5'))
    found = run_of['evaluation']
    assert found['tokens'] == expected['tokens']
    assert len(found['tokens']) == 20
    timeless = {name: value for name, value in found['results'].items() if name != 'seconds'}
    assert {'fid', 'kid', 'precision', 'recall'} < set(timeless)
    assert timeless == {name: pytest.approx(expected['results'][name], rel=1e-4) for name in timeless}
    assert not found['differ']
    # on several, a result of one number per image lies in parts, and torch_xla makes a copy program every time it is read
    assert found['compiled_again'] <= (0 if devices == 'one_device' else 4)


def test_images_are_cut_and_parameters_are_not(two_devices: dict[str, Any], one_device: dict[str, Any]) -> None:
    image, keys, parameter = two_devices['evaluation']['sharding']
    assert image == '{devices=[2,1,1,1]0,1}'
    assert keys in ('', '{replicated}')
    assert parameter in ('', '{replicated}')
    assert 'devices' not in ''.join(one_device['evaluation']['sharding'])


def test_options_noise_and_moving_settings(processes: dict[str, tuple[Path, Process]]) -> None:
    folder, process = processes['options']
    found = process.found
    assert found['dtypes'] == ['torch.bfloat16']
    assert_compiles_nothing_late(found['straight'])
    assert len(set(found['straight']['losses'])) == 2 * ITERS
    assert found['resumed']['losses'] == found['straight']['losses'][6:]
    straight, resumed = (folder / name / 'run/checkpoints/iter_5' for name in ('straight', 'resumed'))
    assert_same(everything(straight), everything(resumed))


def test_optimizers_step_as_on_the_cpu_whatever_the_rate(one_device: dict[str, Any]) -> None:
    found = one_device['optimizers']
    assert set(found) == {'SGD', 'Adam', 'AdamW'}
    for name, seen in found.items():
        assert seen['error'] < 1e-4, name
        assert seen['state_error'] < 1e-4, name
        assert seen['compiled'][1] == seen['compiled'][-1], (name, seen['compiled'])
        assert seen['fused_here_and_there'] == [True, False], name
        assert seen['rate'] == pytest.approx(0.05), name


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    strategy = XLAStrategy()
    strategy.devices, strategy._divides = 3, False
    with pytest.raises(ConfigError, match='does not divide among 3 devices'), strategy.micro_step({}, True):
        pytest.fail('the step was taken')


def test_fp16_is_refused() -> None:
    with pytest.raises(ConfigError, match='bf16'):
        XLAStrategy(precision='fp16')
