"""XLA on the CPU, in a process of its own: ``PJRT_DEVICE`` must be set before torch_xla is imported."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runners.support import REPOSITORY

SCRIPT = """
import json, sys
from pathlib import Path
from tests.runners.support import build_trainer, quiet

def losses(folder, strategy):
    callbacks = {'.trainer.callbacks': quiet('EMACallback')}
    trainer = build_trainer(Path(folder) / strategy, dict(iters=3, strategy=strategy), callbacks)
    found = []
    backward = trainer.strategy.backward
    trainer.strategy.backward = lambda loss: (backward(loss), found.append(loss.detach()))
    trainer.run()
    trainer.guard.check()
    codebook = trainer.model.tokenizer.quantizer.codebook.weight.detach().cpu()
    return trainer.strategy.device.type, [float(loss) for loss in found], codebook.double().abs().sum().item()

print(json.dumps(losses(*sys.argv[1:])))
"""


def run(folder: Path, strategy: str) -> tuple[str, list[float], float]:
    environment = os.environ | {'PJRT_DEVICE': 'CPU', 'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '2'}
    command = [sys.executable, '-c', SCRIPT, str(folder), strategy]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    device, losses, codes = json.loads(done.stdout.strip().splitlines()[-1])
    return device, losses, codes


@pytest.mark.slow
def test_three_steps_on_xla_are_those_on_the_cpu(tmp_path: Path) -> None:
    if importlib.util.find_spec('torch_xla') is None:
        pytest.skip('torch_xla is not installed')
    # two processes: the first backward of a process fixes which devices autograd knows
    plain, expected, codes = run(tmp_path, 'base')
    device, found, same_codes = run(tmp_path, 'xla')
    assert (plain, device) == ('cpu', 'xla')
    assert found == pytest.approx(expected, rel=1e-4)
    assert same_codes == pytest.approx(codes, rel=1e-4)
