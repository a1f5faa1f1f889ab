"""``key=value`` beside ``key:expr`` and ``key::text``, behind flags and as bare words after CONFIG."""

from __future__ import annotations

import argparse

import pytest

from vq.assembly.compose import compose
from vq.cli import arguments, fid, inference, sample, train, val
from vq.cli.key_values import with_flags
from vq.core.errors import ConfigError, UserError


def of_train(*words: str) -> argparse.Namespace:
    return arguments.parse(train.make_parser(), ['tok', 'photos/tokenizer.py', *words])


@pytest.mark.parametrize(
    ('pair', 'key', 'value'),
    [
        ('image_size=64', 'image_size', 64),
        ('lr=1e-4', 'lr', 1e-4),
        ('size=S', 'size', 'S'),
        ('data_root=photos', 'data_root', 'photos'),
        ('data_root=/mnt/a b=c:d', 'data_root', '/mnt/a b=c:d'),
        ('bad_images=skip', 'bad_images', 'skip'),
        ('levels=(8, 5, 5)', 'levels', (8, 5, 5)),
        ('levels=[8,5]', 'levels', [8, 5]),
        ('kept={"a": 1}', 'kept', {'a': 1}),
        ('on=True', 'on', True),
        ('on=true', 'on', 'true'),
        ('none=None', 'none', None),
        ("year='2024'", 'year', '2024'),
        ('year=007', 'year', '007'),
        ('empty=', 'empty', ''),
        ('shift=-1', 'shift', -1),
        ('tokenizer.image_size=64', 'tokenizer.image_size', 64),
        ('name=a[0]', 'name', 'a[0]'),
        # the sign that stands first decides, so todd's forms keep their meaning
        ('load:dict(strict=False)', 'load', {'strict': False}),
        ('file::a=b', 'file', 'a=b'),
        ('text=a:b', 'text', 'a:b'),
    ],
)
def test_values(pair, key, value):
    assert of_train('--config-options', pair).config_options == {key: value}
    assert of_train(pair).config_options == {key: value}  # a bare word is the same


@pytest.mark.parametrize(
    ('pair', 'path', 'value'),
    [
        ('.trainer.iters=100', '.trainer.iters', 100),
        ('.trainer.callbacks[-1].interval=50', '.trainer.callbacks[-1].interval', 50),
        (".trainer.model['a:b=c'].x=1", ".trainer.model['a:b=c'].x", 1),
        ('.trainer.load:dict(strict=False)', '.trainer.load', {'strict': False}),
        ('.trainer.name::1', '.trainer.name', '1'),
    ],
)
def test_words_that_begin_with_a_dot_are_overrides(pair, path, value):
    assert of_train(pair).override == of_train('--override', pair).override == {path: value}


def test_flags_and_words_mix_in_any_order_and_later_wins():
    options = of_train('a=1', '--auto-resume', 'b=2', '--config-options', 'a=3', 'c=4', '--seed', '7', 'b=5', '.x=1')
    assert options.config_options == {'a': 3, 'b': 5, 'c': 4} and options.override == {'.x': 1}
    assert options.auto_resume and options.seed == 7 and options.config == 'photos/tokenizer.py'


def test_the_name_of_a_run_is_never_a_pair():
    options = arguments.parse(train.make_parser(), ['lr=0.1', 'a=1', '--auto-resume'])
    assert (options.name, options.config, options.config_options) == ('lr=0.1', None, {'a': 1})


def test_words_of_a_flag_stay_with_it():
    options = arguments.parse(sample.make_parser(), ['gen', 'k=1', '--sweep', 'guidance=1:3:0.5', '--load-model-from', 'x'])
    assert options.sweep == ['guidance=1:3:0.5'] and options.config_options == {'k': 1}


@pytest.mark.parametrize('flag', ['--load-model-from', '--load-from'])
def test_a_pair_ends_a_list_of_files(flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'lr=2').touch()
    files = ['iter_4', 's3://bucket/a=b', 'best:psnr', 'runs/lr=1', 'lr=2']
    words = with_flags(val.make_parser(), ['run', 'digits/vq_ema.py', flag, *files, 'lr=1', '.a.b=c', 'strategy::ddp'])
    assert words[2:] == [flag, *files, '--config-options=lr=1', '--override=.a.b=c', '--config-options=strategy::ddp']
    assert with_flags(val.make_parser(), ['run', flag, 'lr=1'])[1:] == [flag, 'lr=1']  # a flag needs one: its error says so


def test_an_existing_file_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a=1.png').touch()
    argv = ['tok', 'a=1.png', 'b=2', '--load-model-from', 'tok']
    options = arguments.parse(inference.make_parser(), argv)
    assert options.images == ['a=1.png'] and options.config_options == {'b': 2}


def test_a_config_whose_path_holds_a_sign_is_a_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'lr=1.py').touch()
    options = arguments.parse(val.make_parser(), ['tok', 'lr=1.py', 'b=2'])
    assert options.config == 'lr=1.py' and options.config_options == {'b': 2}


def test_fid_takes_words_too():
    options = arguments.parse(fid.make_parser(), ['folder', 'data_root=photos', '.dataloader.batch_size=8'])
    assert options.config_options == {'data_root': 'photos'} and options.override == {'.dataloader.batch_size': 8}


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['image_size==64'], 'two equal signs; write image_size=64'),
        (['load=dict(strict=False)'], "for an expression write 'load:dict(strict=False)'"),
        (['levels=[8,', '5]'], 'Quote the word'),
        (['levels=[2 * 4]'], "for an expression write 'levels:[2 * 4]'"),
        (['--override', '.trainer.iters'], 'a value is missing: .trainer.iters=VALUE'),
        (['--override', '.a=1', 'photos/ar.py'], 'NAME and CONFIG stand before this flag'),
        (['--override', '.trainer.callbacks[-1].interval', '50'], 'a value is missing'),
        (['--override', 'zsh{a,b}'], 'a shell may have changed it. Quote the word'),
    ],
)
def test_what_a_shell_has_damaged_is_named(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        of_train(*words)
    said = capsys.readouterr().err
    assert end.value.code == 2 and message in said and said.splitlines()[-1] == 'vq train --help lists the arguments.'


def test_a_pattern_that_became_a_file_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'iters').touch()
    with pytest.raises(SystemExit):
        of_train('--override', 'iters')
    assert 'it is a file, so a shell may have replaced a pattern by it. Quote the word' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message', 'hint'),
    [
        (['--cfg-options', 'a=1'], 'vq train has no --cfg-options', 'bare words after CONFIG: image_size=64'),
        (['--resume'], 'vq train has no --resume', 'Write --auto-resume'),
        (['--resume-from', 'x'], 'vq train has no --resume-from', '--load-from iter_N'),
        (['--resume_from', 'x'], 'vq train has no --resume_from', 'Write --auto-resume'),
        (['--launcher', 'pytorch'], 'vq train has no --launcher', 'strategy=ddp'),
        (['--work-dirs', 'x'], 'vq train has no --work-dirs', '--work-dir DIR'),
        (['--work-dirs=x'], 'vq train has no --work-dirs', '--work-dir DIR'),
        (['--auto-resum3'], "vq train has no --auto-resum3; did you mean '--auto-resume'?", 'vq train --help'),
        (['--image-size', '64'], 'vq train has no --image-size', 'a bare word: image_size=VALUE'),
    ],
)
def test_flags_of_other_toolkits_get_the_right_word(words, message, hint):
    with pytest.raises(UserError) as error:
        of_train(*words)
    assert error.value.message == message and hint in error.value.hint


def test_a_config_file_in_the_place_of_name():
    def said(*words: str) -> str:
        with pytest.raises(UserError) as error:
            arguments.parse(train.make_parser(), words)
        return str(error.value)

    assert 'vq train needs a NAME first' in said('photos/tokenizer.py', 'data_root=photos')
    assert said('photos/tokenizer.py').endswith('Write: vq train tokenizer photos/tokenizer.py')
    assert said('photos/tokenizer.py', 'tok').endswith('Write: vq train tok photos/tokenizer.py')


@pytest.mark.parametrize(
    ('pair', 'hint'),
    [
        ('batch_size_in_total=true', 'Write True, False and None as Python does.'),
        ('evaluate=none', 'Write True, False and None as Python does.'),
        ('connector=2024', 'For a text write connector::2024.'),
        ('iters=abc', 'iters: optimizer steps.'),
    ],
)
def test_a_value_that_was_read_as_another_type(pair, hint):
    options = of_train(pair)
    with pytest.raises(ConfigError) as error:
        compose('digits/vq_ema.py', options.config_options, {})
    assert error.value.hint.endswith(hint)
