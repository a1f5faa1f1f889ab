"""Write ``docs/options.md``: every option of every recipe. A test compares the page with the recipes.

python tools/option_pages.py
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import vq.recipes
from vq.cli.options import show
from vq.core.options import Declared
from vq.core.parameters import describe
from vq.core.recipe import REQUIRED, Recipe

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs/options.md'
HEAD = """# Options of configs

Every option of the shipped configs, by the recipe that declares it. `tools/option_pages.py` writes this page, and a test
compares it with the code. A config has the options of its recipe and of all recipes that this one calls. This
prints those of one config, with the values in use:

```bash
vq config digits/vq_ema.py --options
```

An option is set by `key=value` after the config: [commands.md](commands.md#keyvalue). A default in a table is that of the
recipe; a config may set another.
"""


def recipes() -> dict[str, Recipe]:
    """All recipes by name, in the order of their modules."""
    found: dict[str, Recipe] = {}
    for module in pkgutil.iter_modules(vq.recipes.__path__, 'vq.recipes.'):
        own = [value for value in vars(importlib.import_module(module.name)).values() if isinstance(value, Recipe)]
        found |= {value.name: value for value in own if value.__module__ == module.name}
    return found


def configs_of() -> dict[str, list[str]]:
    """Recipe -> the shipped configs that call it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / 'configs').rglob('*.py')):
        if path.stem == 'interface':  # fragments of earlier versions
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.setdefault(node.func.id, []).append(str(path.relative_to(ROOT / 'configs')))
    return found


def page() -> str:
    called = configs_of()
    return '\n'.join([HEAD, *(line for each in recipes().values() for line in section(each, called))]).rstrip() + '\n'


def section(recipe: Recipe, called: dict[str, list[str]]) -> Iterator[str]:
    yield f'## {recipe.name}'
    yield ''
    about = (recipe.__doc__ or '').partition('\n\n')[0].replace('\n', ' ').replace('``', '`')
    yield f'{" ".join(about.split())} In `{recipe.__module__}`.'
    yield ''
    if recipe.name in called:
        yield f'Configs: {", ".join(f"`{file}`" for file in dict.fromkeys(called[recipe.name]))}.'
        yield ''
    uses = [f'[{use.name}](#{use.name})' for use in recipe.uses]
    if uses:
        hidden = f', without {", ".join(f"`{name}`" for name in recipe.hides)}' if recipe.hides else ''
        yield f'Also the options of {", ".join(uses)}{hidden}.'
        yield ''
    if recipe.own:
        yield '| option | type | default | meaning |'
        yield '|---|---|---|---|'
        yield from map(row, recipe.own)
        yield ''


def row(option: Declared) -> str:
    names = ', '.join(f'`{name}`' for name in option.names())
    default = 'required' if option.default is REQUIRED else f'`{show(option.default)}`'
    cells = names, f'`{describe(option.annotation)}`', default, option.meaning
    return f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |'


def main() -> int:
    PAGE.write_text(page(), encoding='utf-8')
    print(f'wrote {PAGE}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
