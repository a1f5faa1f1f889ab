"""The scripts that compare two checkouts, and that record the call path of one: they find differences; rules hide none."""

from __future__ import annotations

import copy
import importlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.shipped import composed
from tests.snippets import ROOT, environment
from tests.warm import CLIP, WarmStart

OLD_FORM = {
    'trainer': {
        'type': 'VQRunnerRegistry.Trainer',
        'optimizers': {'a': {'type': 'Adam', 'lr': 1e-3}, 'b': {'type': 'Adam', 'lr': 1e-3}},
        'callbacks': [
            {'type': 'OptimizeCallback', 'optimizer': 'a', 'clip': 1.0, 'schedule': {'type': 'CosineSchedule', 'warmup': 2}},
            {'type': 'OptimizeCallback', 'optimizer': 'b', 'clip': None},
            {'type': 'AnnealCallback', 'setting': 'x'},
            {'type': 'AnnealCallback', 'setting': 'y'},
            {'type': 'KMeansInitCallback'},
            {'type': 'EMACallback', 'decay': 0.9},
        ],
    },
    'validator': {'metrics': {'lpips': None, 'codebook': {'type': 'CodebookMetric', 'codebook_size': 64}}, 'callbacks': []},
    'tiny': {'trainer': {'iters': 8}},
}
NEW_FORM = {
    'trainer': {
        'type': 'Trainer',
        'optimizers': {
            'b': {'type': 'Adam', 'lr': 1e-3, 'scale_lr': 'none'},
            'a': {'type': 'Adam', 'lr': 1e-3, 'clip': 1.0, 'schedule': {'type': 'CosineSchedule', 'warmup': 2}},
        },
        'callbacks': {
            'first': {'type': 'AnnealCallback', 'setting': 'x'},
            'mean': {'type': 'EMACallback', 'decay': 0.9},
            'second': {'type': 'AnnealCallback', 'setting': 'y'},
            'k_means': {'type': 'KMeansInitCallback'},
            'log': None,
        },
    },
    'validator': {'metrics': {'codebook': {'type': 'CodebookMetric'}}},
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``module('_same_rules')``: a helper of the scripts."""
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    return importlib.import_module


def left(rules: Any, old: Any, new: Any, entry: str = 'mine.py', defaults: Any = ()) -> list[str]:
    context = rules.Context(entry, dict(defaults))
    return [found.path for found in rules.remaining(rules.differences(rules.normal(old), rules.normal(new)), context)]


# the rules


def test_lists_of_callbacks_and_dicts_of_them_are_brought_into_one_form(module):
    rules = module('_same_rules')
    assert left(rules, OLD_FORM, NEW_FORM) == []
    assert list(rules.normal(OLD_FORM)['trainer']['callbacks']) == ['anneal', 'anneal#1', 'ema', 'k_means_init']


def test_a_step_without_a_name_is_that_of_every_optimizer(module):
    old, new = copy.deepcopy(OLD_FORM), copy.deepcopy(NEW_FORM)
    old['trainer']['callbacks'][:2] = [{'type': 'VQCallbackRegistry.OptimizeCallback', 'optimizer': None, 'clip': 2.0}]
    new['trainer']['optimizers'] = {name: {'type': 'Adam', 'lr': 1e-3, 'clip': 2.0} for name in 'ab'}
    assert left(module('_same_rules'), old, new) == []
    del new['trainer']['optimizers']['b']['clip']
    assert left(module('_same_rules'), old, new) == ['trainer.optimizers.b.clip']


def test_what_follows_from_the_model_may_be_left_out_and_not_be_another(module):
    new = copy.deepcopy(NEW_FORM)
    new['validator']['metrics']['codebook']['codebook_size'] = 65
    assert left(module('_same_rules'), OLD_FORM, new) == ['validator.metrics.codebook.codebook_size']
    assert left(module('_same_rules'), NEW_FORM, OLD_FORM) == ['validator.metrics.codebook.codebook_size']


def test_an_argument_may_be_left_out_at_the_default_of_the_side_that_does(module):
    old, new = {'part': {'type': 'A', 'x': 1, 'record': {'y': 2}}}, {'part': {'type': 'A', 'record': {}}}
    both = {'A': {'x': 1}, 'A.record': {'y': 2}}
    rules = module('_same_rules')
    assert left(rules, old, new) == ['part.x', 'part.record.y']
    assert left(rules, old, new, defaults={'new': both}) == left(rules, new, old, defaults={'old': both}) == []
    assert left(rules, old, new, defaults={'old': both}) == ['part.x', 'part.record.y']
    assert left(rules, old, new, defaults={'new': {**both, 'A': {'x': True}}}) == ['part.x']


def test_what_was_added_on_purpose_is_so_for_its_entry_alone(module):
    rules, new = module('_same_rules'), copy.deepcopy(NEW_FORM)
    entry, path, _ = rules.ADDED[0]
    assert path == 'trainer.callbacks.eval'
    new['trainer']['callbacks']['evaluate'] = {'type': 'EvalCallback', 'interval': 8}
    assert left(rules, OLD_FORM, new, entry) == []
    assert left(rules, OLD_FORM, new, 'digits/vq_ema.py') == [path]
    assert path in left(rules, new, OLD_FORM, entry), 'what was there may not go'


@pytest.mark.parametrize(('one', 'other'), [(1, 1.0), (1, True), ([1], {'(tuple)': [1]}), (None, 'None'), ([1, 2], [2, 1])])
def test_values_that_python_keeps_apart_differ(module, one, other):
    assert left(module('_same_rules'), {'a': {'b': one}}, {'a': {'b': other}}) != []


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def changed(config: Any, path: tuple[Any, ...]) -> Any:
    found = copy.deepcopy(config)
    place = found
    for key in path[:-1]:
        place = place[key]
    value = place[path[-1]]
    if isinstance(value, bool):
        place[path[-1]] = not value
    elif isinstance(value, int | float):
        place[path[-1]] = value + 1
    else:  # an empty list, an empty dict, a text
        place[path[-1]] = [{'type': 'X'}] if value == [] else {'x': 1} if value == {} else f'{value}x'
    return found


@pytest.mark.parametrize('entry', ['digits/vqgan.py', 'vqgan/8192_dd2_aglwg075_imagenet_ddp.py', 'digits/ar.py'])
def test_a_change_of_any_value_is_seen(module, entry):
    """No rule hides a difference, and no rule creates one between equal configs."""
    rules, worker = module('_same_rules'), module('_same_worker')
    config = worker.encoded(composed(entry, tiny=False))
    assert left(rules, config, {**config, 'tiny': {}}, entry) == [], 'it is compared by what it does'
    config.pop('tiny')
    context = rules.Context(entry, dict.fromkeys(('old', 'new'), worker.defaults()))
    first, paths = rules.normal(config), list(leaves(config))
    assert rules.normal(first) == first and len(paths) > 60
    others = (rules.differences(first, rules.normal(changed(config, path))) for path in paths)
    unseen = [path for path, found in zip(paths, others, strict=True) if not rules.remaining(found, context)]
    assert not unseen


def test_numbers_paths_and_containers_keep_their_kinds_in_what_a_checkout_tells(module):
    worker = module('_same_worker')
    told = worker.encoded({'a': (1, 1.0), 'b': [float('inf'), {2, 1}], 3: str(worker.HOME / 'configs'), 'd': Path('x')})
    assert json.loads(json.dumps(told)) == told
    assert told == {
        'a': {'(tuple)': [1, 1.0]},
        'b': [{'(float)': 'inf'}, {'(set)': ['1', '2']}],
        '(int) 3': '<checkout>/configs',
        'd': {'(path)': 'x'},
    }
    assert isinstance(told['a']['(tuple)'][1], float)


def test_every_rule_has_a_sentence(module):
    rules = module('_same_rules')
    for rule in (*rules.RULES, *rules.ALLOWED):
        assert rule.says.endswith('.') and len(rule.says) > 40


# built parts and tensors


def test_built_parts_are_compared_by_class_tensor_and_attribute(module):
    rules = module('_same_rules')
    one = {'strict': {'a': 'A', 'a.w (state)': 'float32 (2,)'}, 'loose': {'a.x': 1, 'a.only_old': 1}}
    two = {'strict': {'a': 'A', 'a.w (state)': 'float32 (3,)', 'b': 'B'}, 'loose': {'a.x': 2, 'a.only_new': 1}}
    assert [found.path for found in rules.built_differences(one, two)] == ['a.w (state)', 'b', 'a.x']
    assert not list(rules.built_differences(one, copy.deepcopy(one)))


def test_built_parts_tell_what_is_trained(module):
    described = module('_same_worker').Described()
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    model[0].bias.requires_grad_(False)
    described.part(model, 'm')
    assert described.strict['m.0'] == 'Linear' and described.loose['m.0.out_features'] == 3
    assert described.strict['m.0.weight (parameter)'] == 'float32 (3, 2), trained: True'
    assert described.strict['m.0.bias (parameter)'].endswith('False')
    assert described.strict['m.1.num_batches_tracked (state)'] == 'int64 ()'


def test_digest_sees_name_dtype_shape_and_every_bit(module, tmp_path):
    runs = module('_same_runs')

    def digest(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> str:
        save_file(tensors, tmp_path / 'model.safetensors', metadata)
        found: str = runs.whole(runs.digests(tmp_path))
        return found

    values = torch.arange(6, dtype=torch.float32)
    first = digest({'a': values, 'b': torch.ones(2)})
    assert digest({'b': torch.ones(2), 'a': values}, {'made': 'later'}) == first
    moved = values.clone()
    moved[3] = moved[3].nextafter(torch.tensor(9.0))
    others = [
        {'a': moved, 'b': torch.ones(2)},
        {'a': values.reshape(2, 3), 'b': torch.ones(2)},
        {'a': values.view(torch.int32), 'b': torch.ones(2)},
        {'A': values, 'b': torch.ones(2)},
        {'a': values},
    ]
    assert len({first, *map(digest, others)}) == 6
    (tmp_path / 'model.safetensors').unlink()
    with pytest.raises(SystemExit, match='has no model'):
        runs.digests(tmp_path)


# the scripts


Run = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture(scope='module')
def run() -> Iterator[Run]:
    """``run(SCRIPT, ARGUMENTS...)`` -> exit code, output, its last line. Processes begin with torch imported, but with no
    module of vq, since they import that of one of two checkouts.
    """
    with WarmStart([CLIP, 'sklearn.datasets']) as warm:

        def run(script: str, *arguments: str) -> tuple[int, str, dict[str, Any]]:
            command = [warm.folder / 'python', ROOT / 'benchmarks' / script, *arguments]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True)
            assert done.stdout.endswith('}\n'), f'{done.stdout}\n{done.stderr}'
            return done.returncode, done.stdout, json.loads(done.stdout.splitlines()[-1])

        yield run


def copied(folder: Path) -> Path:
    """With its bytecode: times of files are copied too, so only what a test changes is compiled again."""
    for name in ('vq', 'configs', 'tests'):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def after_docstring(file: Path, line: str) -> None:
    head, mark, rest = file.read_text().partition('\n"""\n')
    assert mark
    file.write_text(f'{head}{mark}\n{line}\n{rest}')


@pytest.mark.slow
def test_a_checkout_and_its_copy_are_the_same(run, tmp_path):
    code, text, found = run('same.py', str(copied(tmp_path / 'copy')), '--quick')
    assert code == 0 and found['equal'], text
    assert found['compose']['entries'] == 6 and found['compose']['cases'] == 12
    assert found['build']['compared']['strict'] > 5000 and found['build']['compared']['loose'] > 5000
    assert len(found['train']['runs']) == 2 and all(one['equal'] for one in found['train']['runs'].values())


@pytest.mark.slow
def test_one_changed_value_is_named_and_trains_to_other_tensors(run, tmp_path):
    tree, leaf = copied(tmp_path / 'copy'), 'cluster/dino_8192_imagenet_ddp.py'
    after_docstring(tree / 'configs' / leaf, "_kwargs_.setdefault('lr', 1.5e-3)")
    after_docstring(tree / 'configs' / 'ic' / 'digits.py', "_kwargs_.setdefault('lr', 1.5e-3)")
    code, text, found = run('same.py', str(tree), '--quick', '--compose', '--train')
    assert code == 1 and not found['equal']
    assert found['compose']['different'] == [leaf]
    assert 'trainer.optimizers.tokenizer.lr' in text and '0.0015' in text
    assert {name: one['equal'] for name, one in found['train']['runs'].items()} == {'digits/demo': True, 'ic/digits': False}


@pytest.mark.slow
def test_an_entry_that_is_gone_and_a_part_that_is_another_are_named(run, tmp_path):
    tree, leaf = copied(tmp_path / 'copy'), 'cvqvae/8192_contrastive_imagenet_ddp.py'
    (tree / 'configs' / leaf).unlink()
    norms = tree / 'vq' / 'encoders' / 'convolutional.py'
    norms.write_text(norms.read_text().replace('class ConvEncoder(', 'class Renamed(') + '\nConvEncoder = Renamed\n')
    registered = "\nfrom vq.registries import VQEncoderRegistry\nVQEncoderRegistry.register_('ConvEncoder')(Renamed)\n"
    norms.write_text(norms.read_text() + registered)
    code, text, found = run('same.py', str(ROOT), str(tree), '--quick', '--compose', '--build', '--only', 'cvqvae/8192_c*')
    assert code == 1 and leaf in found['compose']['different'] and 'the file is gone' in text
    assert found['build']['different'] and 'Renamed' in text


# the walk


def test_a_climb_is_a_call_that_rises_to_what_the_file_imports(module):
    call = module('walk').Call('io/weights.py', 'load', 'tasks/task.py', 'Task.roots')
    assert call.rises and not call.is_import([]) and not call.is_import([('vq.tasks.task', 'Other')])
    assert call.is_import([('vq.tasks.task', 'Task')]) and call.is_import([('vq.tasks.task', '')])
    assert not module('walk').Call('tasks/task.py', 'f', 'io/weights.py', 'load').rises
    with pytest.raises(SystemExit, match='has no floor'):
        module('walk').floor('attic/box.py')


def test_every_room_stands_on_a_floor(module):
    walk = module('walk')
    names = {path.name.removesuffix('.py') for path in (ROOT / 'vq').iterdir() if path.suffix in ('', '.py')}
    assert names - set(walk.FLOOR) <= {'__pycache__', 'configs'}


@pytest.mark.slow
def test_the_walk_counts_a_climb_that_is_planted(run, tmp_path):
    tree = copied(tmp_path / 'copy')
    with (tree / 'vq' / 'loading.py').open('a') as file:
        file.write('\n\ndef planted():\n    return None\n')
    with (tree / 'vq' / 'tokenizers' / 'vqgan.py').open('a') as file:
        file.write('\n\n_encode = VQGAN.encode\n\n\ndef climbing(self, image):\n    from vq.loading import planted\n')
        file.write('\n    planted()\n    return _encode(self, image)\n\n\nVQGAN.encode = climbing\n')
    _, _, here = run('walk.py', '--quick')
    code, text, there = run('walk.py', str(tree), '--quick')
    assert code == 0 and 'equal: tokens with and without the recorder' in text
    assert set(there['climbs']) - set(here['climbs']) == {'tokenizers/vqgan.py climbing -> loading.py planted'}
    assert any('_construct -> tokenizers/vqgan.py' in call for call in here['handed_up'])
    assert len(here['rooms']) <= here['aim']['rooms']
