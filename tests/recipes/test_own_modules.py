"""Modules of the user's parts, in configs on top of a run whose tokenizer has such parts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.io.test_runs import write
from vq.assembly.compose import compose
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.trust import Untrusted, noted_modules, noting, trusting, with_noted
from vq.registries import VQQuantizerRegistry

PART = """
from vq.registries import VQQuantizerRegistry
from vq.quantizers.finite_scalar import FiniteScalarQuantizer

open('executed', 'a').write('{name} ')

@VQQuantizerRegistry.register_()
class {part}(FiniteScalarQuantizer):
    pass
"""
MODULES = {'own_tokenizer_part': 'OwnFSQ', 'own_generator_part': 'OtherFSQ'}
RUN = 'own_tokenizer_part'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two modules of the user, and the run ``tok``, which names the first one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('DRY_RUN', raising=False)
    monkeypatch.setattr(sys, 'path', list(sys.path))  # imports put the working directory on it
    for module, part in MODULES.items():
        Path(f'{module}.py').write_text(PART.format(name=module, part=part))
    quantizer = dict(type='OwnFSQ', levels=[4, 4])
    config = PyConfig.load('digits/vq_ema.py', quantizer=quantizer)
    write(Path('work_dirs/tok'), config={**config, 'custom_imports': [RUN]}, spec=None)
    yield tmp_path
    for module, part in MODULES.items():
        sys.modules.pop(module, None)
        VQQuantizerRegistry.data.pop(part, None)


def executed() -> list[str]:
    return Path('executed').read_text().split() if Path('executed').exists() else []


def upon_the_run(text: str = '', **settings: Any) -> PyConfig:
    Path('gen.py').write_text(f'from vq.recipes import digits_generator\n_base_ = [digits_generator(_kwargs_)]\n{text}\n')
    return compose('gen.py', {'tokenizer_run': 'tok'}, {}, **settings)


def test_a_module_of_the_run_needs_trust(here: Path) -> None:
    with pytest.raises(Untrusted, match=rf"the run 'tok' names modules .*: {RUN}\n"):
        upon_the_run()
    assert not executed()
    config = upon_the_run(trusted=True)
    assert config.custom_imports == [RUN] and executed() == [RUN]
    assert config.trainer.model.tokenizer.tokenizer.quantizer.type == 'OwnFSQ'


def test_a_config_that_names_the_module_itself_needs_no_trust(here: Path) -> None:
    config = upon_the_run(f"custom_imports = ['own_generator_part', '{RUN}']")
    assert config.custom_imports == ['own_generator_part', RUN] == executed()


def test_own_modules_do_not_replace_those_of_the_run(here: Path) -> None:
    """A list in a file replaced the list of the run, and the quantizer was of an unknown type."""
    own = "custom_imports = ['own_generator_part']"
    with pytest.raises(Untrusted, match=f'executed: {RUN}\n'):
        upon_the_run(own)
    assert not executed()
    assert upon_the_run(own, trusted=True).custom_imports == ['own_generator_part', RUN] == executed()


def test_modules_of_a_config_given_as_data_need_trust_themselves(here: Path) -> None:
    """What a stranger's composed config names is not the user's own, so it covers nothing."""
    Path('stranger.json').write_text(json.dumps({'custom_imports': [RUN]}))
    Path('gen.py').write_text("_base_ = ['stranger.json']\n")
    with pytest.raises(Untrusted, match=r'stranger\.json names modules'):
        compose('gen.py', {}, {})
    assert not executed()


@pytest.mark.parametrize('config', ['digits/ar.py', 'digits/maskgit.py', 'digits/decoder.py', 'digits/probe.py'])
def test_every_family_on_a_tokenizer_imports_its_modules(here: Path, config: str) -> None:
    with pytest.raises(Untrusted):
        compose(config, {'tokenizer_run': 'tok'}, {})
    assert not executed()
    assert RUN in compose(config, {'tokenizer_run': 'tok'}, {}, trusted=True).custom_imports
    assert executed() == [RUN]


def test_a_module_that_is_not_there_is_told_with_the_way_to_it(here: Path) -> None:
    Path(f'{RUN}.py').unlink()
    with pytest.raises(ConfigError, match=f"'{RUN}' cannot be imported: No module named") as caught:
        upon_the_run(trusted=True)
    assert 'PYTHONPATH=FOLDER' in caught.value.hint


def test_lists_of_bases_add_up(here: Path) -> None:
    Path('one.py').write_text("custom_imports = ['a', 'b']\n")
    Path('two.py').write_text("_base_ = ['one.py']\ncustom_imports = ['b', 'c']\n")
    assert PyConfig.load('two.py').custom_imports == ['a', 'b', 'c']
    Path('three.py').write_text("_base_ = ['two.py']\n_export_ = dict(_delete_=True, custom_imports=['d'])\n")
    assert PyConfig.load('three.py').custom_imports == ['d']


def test_what_is_noted_is_no_more_than_noted() -> None:
    with noting() as noted:
        assert noted_modules(['a_module_of_nobody'], 'the run x') == ()
        with pytest.raises(ConfigError, match="custom_imports is 'os'"):
            noted_modules('os', 'the run y')
    assert noted == [(('a_module_of_nobody',), 'the run x')]
    assert with_noted(['a_module_of_nobody'], noted) == ['a_module_of_nobody']
    with pytest.raises(Untrusted, match='the run x names modules'):
        with_noted([], noted)
    with trusting(True):
        assert with_noted(['os'], noted) == ['os', 'a_module_of_nobody']
    with pytest.raises(Untrusted):  # outside of ``noting`` the error is raised at once
        noted_modules(['a_module_of_nobody'], 'the run x')
