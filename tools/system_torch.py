"""Let an environment use the torch of this interpreter: python tools/system_torch.py FOLDER, which `make TORCH=system` calls.

The interpreter that runs this file has the torch. The environment in FOLDER finds it by a `.pth` file, so it may come from a
system, from conda or from another environment. FOLDER/constraints.txt then pins this torch, and no package that comes with
the torch of constraints.txt. Needs nothing but the standard library beside the torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
WITH_TORCH = re.compile(r'(torch|torchvision|triton|nvidia-[\w-]+|cuda-[\w-]+)==')


class Unusable(Exception):
    """This interpreter has no torch that vq can use."""


def found() -> tuple[str, Path]:
    """(version, folder) of the torch of this interpreter; it is not imported."""
    spec = importlib.util.find_spec('torch')
    if spec is None or spec.origin is None:
        raise Unusable(f'{sys.executable} has no torch: install the build you want, or leave TORCH=system out')
    version, least = metadata.version('torch'), least_torch()
    if numbers(version) < numbers(least):
        raise Unusable(f'{sys.executable} has torch {version}, and vq needs {least} or newer')
    return version, Path(spec.origin).resolve().parents[1]


def least_torch() -> str:
    """The oldest torch that pyproject.toml allows."""
    listed = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']['dependencies']
    return next(line.removeprefix('torch>=') for line in listed if line.startswith('torch>='))


def numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r'\d+', version.partition('+')[0])[:3]]


def share(environment: Path) -> str:
    """Write both files into an environment of the same Python. Returns the version of the torch."""
    version, folder = found()
    places = sysconfig.get_path('purelib', vars={'base': str(environment), 'platbase': str(environment)})
    (Path(places) / 'system_torch.pth').write_text(f'{folder}\n', encoding='utf-8')
    pinned = [
        line
        for line in (ROOT / 'constraints.txt').read_text(encoding='utf-8').splitlines(keepends=True)
        if not WITH_TORCH.match(line)
    ]
    pinned.append(f'torch=={version}\n')
    if (folder / 'torchvision').is_dir():
        pinned.append(f'torchvision=={metadata.version("torchvision")}\n')
    (environment / 'constraints.txt').write_text(''.join(pinned), encoding='utf-8')
    return version


def main() -> int:
    parser = argparse.ArgumentParser(description='Let an environment use the torch of this interpreter.')
    parser.add_argument('environment', type=Path, metavar='FOLDER', help='made by venv with this interpreter')
    try:
        version = share(parser.parse_args().environment)
    except Unusable as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'using torch {version} of {sys.executable}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
