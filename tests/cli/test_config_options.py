"""``vq.config``: --options, --schema, --list, --copy."""

from __future__ import annotations

import json

import pytest

from tests.shipped import entries
from vq.cli import config as command
from vq.core.config import PyConfig

NAME = 'configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py'


def said(capsys, *argv: str) -> str:
    code = command.main(list(argv))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def test_options_say_type_value_default_origin_and_meaning(capsys):
    text = said(capsys, NAME, '--options', '--config-options', 'num_embeddings:64')
    assert (
        'codebook_size: int = 64    (default 8192, set by the command line; also called num_embeddings)\n    codes\n' in text
    )
    assert "generator_weight: dict[str, Any] = dict(type='AdaptiveWeight', gain=0.75)" in text
    assert 'set by 8192_dd2_aglwg075_imagenet_ddp.py' in text
    assert 'batch_size: int = 96    (default 16, set by vqgan)' in text


def test_options_that_are_not_in_use_stand_apart(capsys):
    used, _, unused = said(capsys, 'configs/digits/ar.py', '--options').partition('not in use here:')
    assert 'rope: ' in used and 'settings: ' not in used
    assert 'network_weights: str | None = None    (of hugging_face)' in unused
    assert 'it.NAME: an option of configs/digits/vq_ema.py' in unused


@pytest.mark.parametrize('name', entries())
def test_schema_of_every_config_holds_its_values(name, capsys):
    found = json.loads(said(capsys, f'configs/{name}', '--schema'))
    assert found['additionalProperties'] is False
    for option, entry in found['properties'].items():
        assert entry.get('description'), option
        if 'enum' in entry and 'x-value' in entry:
            assert entry['x-value'] in entry['enum']


def test_list_finds_configs_by_name_and_by_claim(capsys):
    assert 'configs/fsq/8000_imagenet_ddp.py' in said(capsys, '--list', 'fsq')
    assert 'configs/digits/fsq.py' in said(capsys, '--list', 'scalar quantization')
    assert len(said(capsys, '--list').splitlines()) == len(entries())
    assert command.main(['--list', 'nonesuch']) == 2
    assert "no shipped config contains 'nonesuch'" in capsys.readouterr().err


@pytest.mark.parametrize('name', ['digits/vq_ema.py', 'vqgan/1024_r1_lecam_imagenet_ddp.py', 'digits/maskgit.py'])
def test_copy_composes_to_the_same_and_overwrites_nothing(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said(capsys, f'configs/{name}', '--copy', 'mine.py')
    assert PyConfig.load('mine.py') == PyConfig.load(f'configs/{name}')
    assert 'vq train mine mine.py' in (tmp_path / 'mine.py').read_text()
    assert command.main([f'configs/{name}', '--copy', 'mine.py']) == 2
    assert 'mine.py exists already' in capsys.readouterr().err


def test_a_config_is_needed_for_all_else(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(['--options'])
    assert stop.value.code == 2
    assert 'CONFIG is missing' in capsys.readouterr().err
