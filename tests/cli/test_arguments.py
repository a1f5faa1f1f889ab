"""Command lines: ``KEY:EXPR``, ``KEY::TEXT``, and the flags that users' scripts depend on."""

from __future__ import annotations

import importlib

import pytest

from vq.cli import arguments


def parse(*argv: str):
    parser = arguments.parser('vq.test', 'A parser of a test.')
    arguments.add_config(parser)
    return parser.parse_args(['config.py', *argv])


@pytest.mark.parametrize(
    ('pair', 'key', 'value'),
    [
        ('depth:2', 'depth', 2),
        ('depth::2', 'depth', '2'),
        ('kind::ddp', 'kind', 'ddp'),
        ('file::a:b=c.pth', 'file', 'a:b=c.pth'),
        ('text:::x', 'text', ':x'),
        ('empty::', 'empty', ''),
        ('.a.b[-1].c:dict(strict=False)', '.a.b[-1].c', {'strict': False}),
        ('.a:[1, (2, None)]', '.a', [1, (2, None)]),
        (".a:'x:y'", '.a', 'x:y'),
        ('.a:{"k": 1}', '.a', {'k': 1}),
        ('lr: 1e-4 * 2', 'lr', 2e-4),
        ('low:float("-inf")', 'low', float('-inf')),
    ],
)
def test_expressions_and_text(pair, key, value):
    assert parse('--override', pair).override == {key: value}
    assert parse('--config-options', pair).config_options == {key: value}


def test_repeated_flags_add_up_and_later_wins():
    """todd's class drops values of earlier flags."""
    options = parse('--override', '.a:1', '.b:1', '--config-options', 'x:1', '--override', '.b:2', '.c:3')
    assert options.override == {'.a': 1, '.b': 2, '.c': 3} and options.config_options == {'x': 1}


def test_nothing_is_kept_from_one_parse_to_the_next():
    parser = arguments.parser('vq.test', '')
    arguments.add_config(parser)
    parser.parse_args(['c', '--override', '.a:1'])
    assert parser.parse_args(['c']).override == {}
    assert parser.parse_args(['c', '--override']).override == {}


@pytest.mark.parametrize(
    ('pair', 'message'),
    [
        ('nothing', "--override: 'nothing' is neither KEY=VALUE, KEY:EXPR nor KEY::TEXT"),
        (':1', "':1' is neither KEY=VALUE, KEY:EXPR nor KEY::TEXT"),
        ('a:ddp', "'ddp' is not a Python expression (NameError: name 'ddp' is not defined); for text write a::ddp"),
        ('a:', "'' is not a Python expression"),
        ('a:1 +', "'1 +' is not a Python expression (SyntaxError"),
        ('a:1/0', 'ZeroDivisionError'),
    ],
)
def test_bad_pairs_end_with_code_2_and_say_why(pair, message, capsys):
    with pytest.raises(SystemExit) as end:
        parse('--override', pair)
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-2]


RUN = [
    'NAME',
    'configs/a.py',
    '--config-options',
    'k::v',
    'n:1',
    '--override',
    '.a.b[-1].c:1',
    '.d::text',
    '--seed',
    '7',
    '--autocast',
]
WEIGHTS = ['--load-model-from', 'one.pth', 'two']


@pytest.mark.parametrize(
    ('command', 'argv', 'expected'),
    [
        (
            'train',
            [*RUN, *WEIGHTS, '--load-from', 'iter_10', '--auto-resume', '--change', '--overwrite', '--work-dir', 'D'],
            {'load_from': 'iter_10', 'auto_resume': True, 'change': True, 'overwrite': True, 'work_dir': 'D'},
        ),
        ('val', [*RUN, '--load-from', 'iter_{15..26}0000', *WEIGHTS], {'load_from': ['iter_{15..26}0000']}),
        (
            'test',
            [*RUN, '--tokenize', '--visual', '--num-samples', '5', *WEIGHTS],
            {'tokenize': True, 'visual': True, 'num_samples': 5},
        ),
        ('tokenize', [*RUN, '--train', *WEIGHTS], {'train': True}),
    ],
)
def test_runs_take_the_flags_of_the_command_surface(command, argv, expected):
    options = importlib.import_module(f'vq.cli.{command}').make_parser().parse_args(argv)
    common = {
        'name': 'NAME',
        'config': 'configs/a.py',
        'config_options': {'k': 'v', 'n': 1},
        'override': {'.a.b[-1].c': 1, '.d': 'text'},
        'seed': 7,
        'autocast': True,
        'load_model_from': ['one.pth', 'two'],
    }
    for name, value in {**common, **expected}.items():
        assert getattr(options, name) == value, name


def test_defaults():
    options = importlib.import_module('vq.cli.train').make_parser().parse_args(['NAME', 'CONFIG'])
    assert (options.seed, options.autocast, options.load_model_from, options.auto_resume) == (3407, False, [], False)


def test_inference_takes_images_and_weights_in_any_order():
    parser = importlib.import_module('vq.cli.inference').make_parser()
    for argv in (['C', 'a.png', 'b.png', *WEIGHTS, '--output', 'D'], ['C', '--output', 'D', 'a.png', 'b.png', *WEIGHTS]):
        options = parser.parse_intermixed_args(argv)
        assert (options.config, options.images, options.output, options.load_model_from) == (
            'C',
            ['a.png', 'b.png'],
            'D',
            ['one.pth', 'two'],
        )


@pytest.mark.parametrize(
    ('text', 'meaning'),
    [('True', True), ('1', True), ('true', True), ('YES', True), ('False', False), ('0', False), ('', False), (None, False)],
)
def test_dry_run_is_read_from_the_environment(monkeypatch, text, meaning):
    monkeypatch.delenv('DRY_RUN', raising=False)
    if text is not None:
        monkeypatch.setenv('DRY_RUN', text)
    assert arguments.dry_run() is meaning


def test_a_command_with_commands_below_it():
    """``vq data check FOLDER --json FILE``: flags belong to the lower parser."""
    parser = arguments.parser('vq.test', '')
    check = parser.add_subparsers(dest='what').add_parser('check')
    check.add_argument('folder')
    check.add_argument('--json')
    options = arguments.parse(parser, ['check', 'photos', '--json', 'a=b.json'])
    assert (options.what, options.folder, options.json) == ('check', 'photos', 'a=b.json')
