"""A composed config in JSON is accepted wherever a config is: it is data without options, and is never executed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vq.core import config_json
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.trust import Untrusted, trusting

CONTENT = {'trainer': {'iters': 8, 'betas': (0.9, 0.99)}, 'tiny': {'trainer': {'_delete_': True, 'iters': 2}}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'run.json').write_text(config_json.dumps(CONTENT))
    return tmp_path


def make_run(folder: Path) -> Path:
    """The files that identify the folder of a run."""
    checkpoint = folder / 'checkpoints' / 'iter_5'
    checkpoint.mkdir(parents=True)
    (checkpoint / 'COMPLETE').write_text('{"files": {}}')
    return folder


def test_it_is_a_config(here: Path) -> None:
    config = PyConfig.load('run.json')
    assert config == CONTENT and isinstance(config.trainer, PyConfig) and config.trainer.betas == (0.9, 0.99)
    config.update(config['tiny'])
    config.settle()
    assert config.trainer == {'iters': 2}


def test_it_is_a_base_and_can_be_loaded_by_files(here: Path) -> None:
    (here / 'mine.py').write_text("_base_ = ['run.json']\nwidth = _kwargs_.get('width', 4)\ntrainer = dict(width=width)\n")
    assert PyConfig.load('mine.py', width=8).trainer == {'iters': 8, 'betas': (0.9, 0.99), 'width': 8}
    (here / 'other.py').write_text(
        "from vq.core import PyConfig\n_export_ = PyConfig.load('run.json')\n_export_.trainer.iters = 3\n"
    )
    assert PyConfig.load('other.py').trainer.iters == 3


def test_options_mean_nothing_to_it(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.json has no option 'iters': it is the composed config of a run") as caught:
        PyConfig.load('run.json', iters=3)
    assert '--override' in caught.value.hint
    (here / 'mine.py').write_text("from vq.core import PyConfig\n_export_ = PyConfig.load('run.json', iters=3)\n")
    with pytest.raises(ConfigError, match="has no option 'iters'"):
        PyConfig.load('mine.py')


def test_a_python_name_finds_the_json_beside_it(here: Path) -> None:
    assert PyConfig.load('run.py') == CONTENT
    (here / 'run.py').write_text('a = 1\n')
    assert PyConfig.load('run.py') == {'a': 1}  # outside of runs the file itself comes first
    with pytest.raises(ConfigError, match=r"'runn\.py' does not exist; did you mean 'run\.(py|json)'"):
        PyConfig.load('runn.py')


def test_in_a_run_folder_json_comes_first_and_python_is_read_as_data(here: Path) -> None:
    run = make_run(here / 'work_dirs/x')
    (run / 'mine.py').write_text("open('gone', 'w')\n")
    with pytest.raises(Untrusted, match=r'mine\.py:1: it has a statement of the kind Expr.* would have to be executed'):
        PyConfig.load('work_dirs/x/mine.py')
    (run / 'mine.py').write_text(PyConfig(CONTENT).dumps())
    assert PyConfig.load('work_dirs/x/mine.py') == CONTENT
    with pytest.raises(ConfigError, match='whose options are fixed'):
        PyConfig.load('work_dirs/x/mine.py', iters=3)
    (run / 'mine.py').write_text("open('gone', 'w')\n")
    (run / 'mine.json').write_text(config_json.dumps({'trainer': {}}))
    assert PyConfig.load('work_dirs/x/mine.py') == {'trainer': {}}
    assert not Path('gone').exists()


def test_with_trust_an_older_config_may_be_a_program(here: Path) -> None:
    run = make_run(here / 'work_dirs/x')
    (run / 'mine.py').write_text('trainer = dict(iters=sum([1, 2]))\n')
    with trusting(True):
        assert PyConfig.load('work_dirs/x/mine.py') == {'trainer': {'iters': 3}}
    with pytest.raises(Untrusted):
        PyConfig.load('work_dirs/x/mine.py')


def test_modules_that_it_names_need_trust(here: Path) -> None:
    (here / 'run.json').write_text(json.dumps({'custom_imports': ['a_module_of_nobody']}))
    for name in ('run.json', 'mine.py'):
        (here / 'mine.py').write_text("_base_ = ['run.json']\n")
        with pytest.raises(Untrusted, match=r'run\.json names modules .*: a_module_of_nobody') as caught:
            PyConfig.load(name)
        assert 'trust=True' in caught.value.hint and '--trust' in caught.value.hint
        with trusting(True):
            assert PyConfig.load(name).custom_imports == ['a_module_of_nobody']
    assert 'a_module_of_nobody' not in sys.modules
    (here / 'run.json').write_text(json.dumps({'custom_imports': 'os'}))
    with pytest.raises(ConfigError, match="custom_imports is 'os'"):
        PyConfig.load('run.json')


@pytest.mark.parametrize('name', ['_base_', '_kwargs_', '_export_'])
def test_it_loads_no_other_file(here: Path, name: str) -> None:
    (here / 'parent.py').write_text("open('gone', 'w')\n")
    (here / 'run.json').write_text(json.dumps({name: ['parent.py']}))
    with pytest.raises(ConfigError, match=f"has '{name}', which a composed config cannot have"):
        PyConfig.load('run.json')
    assert not Path('gone').exists()
