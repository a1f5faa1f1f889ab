"""A plain install: missing logging back ends are left out, networks of other packages name their extra, tools are modules."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.runners.support import commands_here, said_by
from tests.sources import ROOT
from vq.cli import train
from vq.cli.commands import COMMANDS
from vq.runners.callbacks.backends import BackendsCallback
from vq.runners.journal import Journal

EXTRAS = (
    'mmengine',
    'mmcv',
    'tensorboard',
    'tensorboardX',
    'wandb',
    'timm',
    'transformers',
    'open_clip',
    'lpips',
    'pytorch_fid',
)
TOOLS = sorted(
    path.stem
    for path in (ROOT / 'tools').glob('*.py')
    if path.stem not in ('check_files', 'api_pages', 'option_pages', 'system_torch')
)


@pytest.fixture
def plain_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no package of an extra were installed."""
    for name in list(sys.modules):
        if name.partition('.')[0] in EXTRAS or name.startswith('torch.utils.tensorboard'):
            monkeypatch.delitem(sys.modules, name)
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(autouse=True)
def dry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with commands_here():
        yield


@pytest.mark.slow
@pytest.mark.usefixtures('plain_install')
@pytest.mark.parametrize(
    'entry', ['vqgan/8192_imagenet_ddp', 'vq/folder', 'ar/c2i_llama_medium_cfg_imagenet_ddp', 'ic/imagenet_ddp']
)
def test_9d_a_plain_install_trains_a_recipe_of_photographs(entry: str, capsys: pytest.CaptureFixture[str]) -> None:
    back_end = '.trainer.callbacks.backends:' + repr(
        {'type': 'BackendsCallback', 'backends': [{'type': 'TensorboardVisBackend'}]}
    )
    said = said_by(capsys, train.main, 'plain', f'configs/{entry}.py', '--override', back_end, '.trainer.iters:2')
    assert said.count('left out: the logging back end TensorboardVisBackend needs tensorboard') == 1
    assert "pip install 'vq[tensorboard]'" in said and 'checkpoints/iter_2' in said


@pytest.mark.usefixtures('plain_install')
def test_9d_networks_of_other_packages_name_their_extra(capsys: pytest.CaptureFixture[str]) -> None:
    said = said_by(capsys, train.main, 'plain', 'configs/digits/ar_hf_llama.py', code=2)
    assert 'Hugging Face networks need the package transformers' in said and said.endswith("pip install 'vq[features]'\n")


def test_9d_one_back_end_is_left_out_and_the_others_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry = pytest.importorskip('mmengine.registry').VISBACKENDS
    written: list[Any] = []
    other = SimpleNamespace(experiment=None, add_scalars=lambda values, step: written.append((step, values)))
    monkeypatch.setattr(registry, 'build', lambda settings: other)
    monkeypatch.setitem(sys.modules, 'wandb', None)
    callback = BackendsCallback([dict(type='WandbVisBackend'), dict(type='LocalVisBackend')])
    context = SimpleNamespace(name='one', config_text='')
    callback.bind(SimpleNamespace(work_dir=tmp_path, step=0, journal=Journal(tmp_path / 'log.jsonl'), context=context))
    monkeypatch.setattr(logging.getLogger('vq'), 'propagate', True)
    callback.before_run()
    records = {id(record): record for record in caplog.records}.values()  # a handler of an earlier test may receive it too
    told = [record.getMessage() for record in records if 'left out' in record.getMessage()]
    assert len(told) == 1 and 'WandbVisBackend needs wandb' in told[0] and "pip install 'vq[wandb]'" in told[0]
    callback.runner.journal.write(3, 'train', {'loss': 1.0})
    assert written == [(3, {'train/loss': 1.0})]


@pytest.mark.parametrize('name', TOOLS)
def test_9d_a_tool_is_a_module_of_the_package(name: str) -> None:
    door, script = importlib.import_module(f'vq.tools.{name}'), (ROOT / f'tools/{name}.py').read_text()
    assert f'from {door.main.__module__} import main' in script
    prog = sys.modules[door.main.__module__].make_parser().prog  # type: ignore[attr-defined]
    assert prog == f'vq.tools.{name}' or prog.removeprefix('vq ') in COMMANDS


@pytest.mark.slow
def test_9d_a_tool_runs_from_any_folder(tmp_path: Path) -> None:
    words = [sys.executable, '-m', 'vq.tools.prepare_checkpoints', '--list']
    done = subprocess.run(words, cwd=tmp_path, env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and 'pytorch-fid' in done.stdout, done.stderr


def test_9d_no_message_names_a_file_of_the_checkout() -> None:
    wrong = [str(path) for path in (ROOT / 'vq').rglob('*.py') if 'tools/' in path.read_text() and path.parent.name != 'tools']
    assert not wrong


def test_9d_every_optional_package_is_in_an_extra_that_the_readme_lists() -> None:
    extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
    table = [line for line in (ROOT / 'README.md').read_text().splitlines() if line.startswith('| `')]
    for package in (
        'open_clip_torch',
        'transformers',
        'timm',
        'lpips',
        'pytorch-fid',
        'mmengine',
        'mmcv-lite',
        'tensorboard',
        'wandb',
    ):
        (extra,) = [
            name for name, needs in extras.items() if name != 'dev' and any(need.startswith(package) for need in needs)
        ]
        assert any(line.startswith(f'| `{extra}`') and package in line for line in table), f'{package}, of the extra {extra}'
