"""The options of a config as a list, as a JSON schema or as a file to start from; the list of shipped configs."""

from __future__ import annotations

import ast
import json
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from vq.core.config import PyConfig, packaged_configs, plain, resolve_config
from vq.core.errors import UserError, nearest
from vq.core.options import COMMAND_LINE, Declared, Record
from vq.core.parameters import describe
from vq.core.recipe import REQUIRED
from vq.io import atomic

SIMPLE = {bool: 'boolean', int: 'integer', float: 'number', str: 'string', type(None): 'null', dict: 'object'}
SHARED = ('datasets', 'strategies', 'models', 'runners')  # folders of fragments for the configs of users


def recorded(file: str, options: Mapping[str, Any]) -> Record:
    """Compose a config and return the record of its options."""
    return PyConfig.load_recorded(file, options)[1]


def rows(record: Record) -> Iterator[tuple[Declared | None, str, Any, str]]:
    """(option, name, value, origin) of each option. The origin is '' if this config does not use the option.

    An option of another config, which an option of this one names, has its declaration there. An option that a file reads
    without a recipe has no declaration: None.
    """
    declared = {option.name: option for option in record.declared.values()}
    for name, option in declared.items():
        value, origin = record.values.get(name, (option.default, ''))
        yield option, name, value, origin
    known = {other for option in declared.values() for other in option.names()}
    for name in sorted(record.read - known):
        if '.' in name:
            continue
        other = next((other for other in record.others.values() if name in other.declared), None)
        if other is None:
            yield None, name, None, record.origins.get(name, 'read by a file')
        else:
            option = other.declared[name]
            value, origin = other.values.get(option.name, (option.default, ''))
            yield option, name, value, record.origins.get(name, origin)


def print_options(record: Record) -> None:
    """Two lines per option: name, type, value, default, origin; then the meaning. Options in use come first."""
    unused = []
    for option, name, value, origin in rows(record):
        if option is None:
            print(f'{name}\n    no recipe declares it; {_short(origin)}')
        elif not origin:
            unused.append(option)
        else:
            default = 'required' if option.default is REQUIRED else f'default {show(option.default)}'
            told = default if origin != 'default' else 'default'
            told += f', set by {_short(origin)}' if origin != 'default' else ''
            also = f'; also called {", ".join(option.names()[1:])}' if len(option.names()) > 1 else ''
            print(f'{name}: {describe(option.annotation)} = {show(value)}    ({told}{also})\n    {option.meaning}')
    if unused:
        print('\nnot in use here:')
    for option in unused:
        default = 'required' if option.default is REQUIRED else show(option.default)
        print(f'{option.name}: {describe(option.annotation)} = {default}    (of {option.owner})\n    {option.meaning}')
    for side, other in record.others.items():
        print(f'\n{side}.NAME: an option of {other.file}, whose options vq config {other.file} --options lists')


def show(value: Any) -> str:
    """A value as it is written on the command line after one colon, long ones cut."""
    text = re.sub(r'\s+', ' ', PyConfig(x=plain(value)).dumps()[4:].strip())
    return text if len(text) <= 60 else f'{text[:57]}...'


def _short(origin: str) -> str:
    return origin if origin in ('', 'default', COMMAND_LINE) else Path(origin).name


def schema(record: Record) -> dict[str, Any]:
    """A JSON schema of the options, with which an editor, a shell or a page can complete and check them."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for option, name, value, origin in rows(record):
        entry: dict[str, Any] = {} if option is None else _type(option.annotation)
        if option is not None:
            entry |= {'description': option.meaning, 'x-recipe': option.owner}
            entry |= {'x-aliases': list(option.names()[1:])} if len(option.names()) > 1 else {}
            if option.default is REQUIRED:
                required.append(name)
            else:
                entry['default'] = _plain_json(option.default)
            if origin:
                entry |= {'x-value': _plain_json(value), 'x-set-by': _short(origin)}
        properties[name] = entry
    sides = {f'^{side}\\.': {'description': f'an option of {other.file}'} for side, other in record.others.items()}
    return {
        '$schema': 'https://json-schema.org/draft/2020-12/schema',
        'title': record.file,
        'type': 'object',
        'properties': properties,
        'required': required,
        'patternProperties': sides,
        'additionalProperties': False,
    }


def _type(annotation: Any) -> dict[str, Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        kinds = [_type(kind) for kind in arguments]
        if all(set(kind) == {'type'} and isinstance(kind['type'], str) for kind in kinds):
            return {'type': [kind['type'] for kind in kinds]}
        return {'anyOf': kinds}
    if origin is Literal:
        return {'enum': list(arguments)}
    if origin in (tuple, list):
        items = {} if not arguments else {'items': _type(arguments[0])}
        exact = origin is tuple and arguments and arguments[-1] is not Ellipsis
        return {'type': 'array', **items, **({'minItems': len(arguments), 'maxItems': len(arguments)} if exact else {})}
    kind = origin or annotation
    return {'type': SIMPLE[kind]} if kind in SIMPLE else {}


def _plain_json(value: Any) -> Any:
    return json.loads(json.dumps(plain(value), default=str))


def shipped(word: str = '') -> list[tuple[str, str]]:
    """(config, first line of its header) of experiments; ``word`` must be in one of the two."""
    root, found = packaged_configs(), []
    for path in sorted(root.rglob('*.py')):
        name = path.relative_to(root)
        if name.parts[0] in SHARED or name.name == 'interface.py':
            continue
        claim = (ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or '').partition('\n')[0]
        if word.lower() in f'configs/{name} {claim}'.lower():
            found.append((f'configs/{name.as_posix()}', claim))
    return found


def print_list(word: str) -> None:
    found = shipped(word)
    if not found:
        names = [name for name, _ in shipped()]
        raise UserError(f"no shipped config contains '{word}'{nearest(word, names)}", 'Leave out WORD to list all of them.')
    width = max(len(name) for name, _ in found)
    for name, claim in found:
        print(f'{name:{width}}  {claim}')


def copy(file: str, target: Path, record: Record) -> None:
    """Write a new config that composes to the same result, with the other options as comments."""
    if target.suffix != '.py':
        raise UserError(f'{target} is not the name of a config file', 'Give a name that ends in .py.')
    if target.exists():
        raise UserError(f'{target} exists already', 'Choose another name, or remove that file.')
    source = resolve_config(file)
    text = source.read_text(encoding='utf-8')
    tree = ast.parse(text)
    header = ast.get_docstring(tree) or ''
    first = next((node.lineno for node in tree.body[1:]), 1) if header else 1
    body = '\n'.join(text.splitlines()[first - 1 :]).strip()
    claim = header.partition('\n')[0] or f'Started from {file}.'
    lines = [f'"""{claim}', '', f'    vq train {target.stem} {target.name}', '']
    lines += [f'Started from {file}.', '"""', '', body, '']
    others = [(option, value) for option, _, value, origin in rows(record) if option is not None and origin == 'default']
    if others:
        lines += ['# Other options, with their defaults; each is a keyword of the call above:']
        lines += [f'#   {option.name}={show(value)}  {option.meaning}' for option, value in others]
    atomic.write_text(target, '\n'.join(lines).rstrip() + '\n')
    print(f'wrote {target}: print it with vq config {target}')
