"""What ``vq doctor`` looks at. Each check gives findings: ``fail`` for what training needs, ``warn`` for what it can lack."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import functools
import importlib.metadata
import importlib.util
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from vq.core import environment
from vq.core.errors import UserError

State = Literal['ok', 'warn', 'fail']
EXTRAS = {  # module -> (extra of vq, what it is for)
    'mmengine': ('mm', 'file back ends and logging back ends'),
    'cv2': ('mm', 'faster decoding and resizing of images'),
    'tensorboard': ('tensorboard', 'curves in TensorBoard'),
    'wandb': ('wandb', 'logging to Weights and Biases'),
    'timm': ('features', 'DINO, DINOv2 and other teachers'),
    'transformers': ('features', 'CLIP, SigLIP, text encoders, Hugging Face generators'),
    'open_clip': ('openclip', 'OpenCLIP teachers'),
    'lpips': ('peers', 'comparison of LPIPS with its authors'),
    'torch_fidelity': ('peers', 'comparison of FID with torch-fidelity'),
    'torch_xla': ('xla', 'TPUs'),
}
LOW_DISK, LOW_MEMORY = 5 * 2**30, 2 * 2**30  # bytes, below which a finding is a warning


@dataclasses.dataclass(frozen=True)
class Finding:
    name: str
    state: State
    text: str
    hint: str = ''  # what to do


def examine(work_dir: str | None, steps: bool = True) -> list[Finding]:
    """All findings, in the order of the table. A check that raises is a failure of its own, and the others go on."""
    runs = Path(work_dir) if work_dir else Path('work_dirs')
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ('python', check_python),
        ('torch', check_torch),
        ('memory', check_memory),
        ('runs', lambda: check_folder(runs)),
        ('caches', check_caches),
        ('weights', check_weights),
        ('compiler', check_compiler),
        ('packages', check_packages),
    ]
    found = []
    for name, check in [*checks, *([('training', check_steps)] if steps else [])]:
        try:
            found += [*check()]
        except Exception as error:
            found.append(Finding(name, 'fail', f'the check itself failed: {type(error).__name__}: {error}'))
    return found


def check_python() -> Iterator[Finding]:
    import vq

    where = f'vq {vq.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}'
    supported = sys.version_info >= (3, 11) and platform.system() in ('Linux', 'Darwin')
    yield Finding(
        'python', 'ok' if supported else 'fail', where, '' if supported else 'vq needs Python 3.11 on Linux or macOS.'
    )


def check_torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a broken install raises OSError or RuntimeError as well
        hint = 'pip install torch; see pytorch.org for the build of your CUDA.'
        yield Finding('torch', 'fail', f'cannot be imported: {error}', hint)
        return
    gpus, cuda = environment.usable_gpus(), torch.version.cuda
    build = f'CUDA {cuda} build' if cuda else f'ROCm {torch.version.hip} build' if torch.version.hip else 'CPU build'
    driver = driver_version()
    text = f'{torch.__version__}, {build}' + (f', driver {driver}' if driver else '')
    if gpus and not torch.cuda.is_available():
        hint = (
            'Install a build of torch for CUDA.'
            if not cuda
            else 'The driver is too old for this CUDA, or is not loaded: nvidia-smi.'
        )
        yield Finding('torch', 'fail' if cuda else 'warn', f'{text}; {gpus} GPUs are here, and torch cannot use them', hint)
    else:
        yield Finding('torch', 'ok', text)
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        bf16 = 'bf16' if about.major >= 8 else 'no bf16'
        memory = f'{free / 2**30:.1f} of {total / 2**30:.1f} GiB free'
        busy = free < total / 2
        hint = 'Another process uses more than half of its memory.' if busy else ''
        yield Finding(f'cuda:{index}', 'warn' if busy else 'ok', f'{about.name}, {memory}, {bf16}', hint)
    if torch.cuda.is_available() and torch.cuda.device_count() > 1:
        ready = torch.distributed.is_nccl_available()
        version = torch.cuda.nccl.version() if ready else ()  # type: ignore[no-untyped-call]
        said = f'NCCL {".".join(map(str, version))}' if ready else 'torch has no NCCL'
        yield Finding('nccl', 'ok' if ready else 'fail', said, '' if ready else 'Install a build of torch with NCCL.')


def driver_version() -> str:
    """The version of the NVIDIA driver; empty if there is none."""
    try:
        text = Path('/proc/driver/nvidia/version').read_text()
    except OSError:
        return ''
    match = re.search(r'Module.*?(\d+\.\d+(\.\d+)?)', text)
    return match[1] if match else 'unknown'


def check_memory() -> Iterator[Finding]:
    cores = environment.usable_cores()
    yield Finding('cores', 'ok', f'{cores} of {os.cpu_count()} cores of this machine can be used')
    try:
        lines = dict(line.split(':', 1) for line in Path('/proc/meminfo').read_text().splitlines())
        free, total = (int(lines[name].split()[0]) * 1024 for name in ('MemAvailable', 'MemTotal'))
    except (OSError, KeyError, ValueError, IndexError):
        yield Finding('memory', 'ok', 'not known on this system')
        return
    low = free < LOW_MEMORY
    hint = 'A training may be killed. Lower batch_size, or end other programs.' if low else ''
    yield Finding('memory', 'warn' if low else 'ok', f'{free / 2**30:.1f} of {total / 2**30:.1f} GiB free', hint)


def check_folder(folder: Path) -> Iterator[Finding]:
    """Disk, permission and locks of the folder of runs, or of the folder in which it would be made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    where = str(folder) if place == folder.absolute() else f'{folder} (to be made in {place})'
    free = shutil.disk_usage(place).free
    low = free < LOW_DISK
    hint = 'Checkpoints need space: vq runs lists what runs take, --work-dir chooses another folder.' if low else ''
    yield Finding('disk', 'warn' if low else 'ok', f'{free / 2**30:.1f} GiB free for {where}', hint)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix='.vq-doctor-') as file:
            locked = can_lock(file.fileno())
    except OSError as error:
        yield Finding('runs', 'fail', f'no file can be written in {place}: {error.strerror}', 'Give another --work-dir.')
        return
    said = 'can be written, and has locks' if locked else 'can be written, but has no locks'
    hint = '' if locked else 'Two trainings of one NAME on two machines would not see each other.'
    yield Finding('runs', 'ok' if locked else 'warn', f'{place} {said}', hint)


def can_lock(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)  # then locks work, and another process holds this one
    return True


def check_caches() -> Iterator[Finding]:
    """Folders that torch and Hugging Face fill: their size, and whether they can be written."""
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    temporary = Path(tempfile.gettempdir())
    user = os.environ.get('USER') or str(os.getuid())
    folders = {
        'torch.hub': Path(os.environ.get('TORCH_HOME') or home / 'torch'),
        'hugging face': Path(os.environ.get('HF_HOME') or home / 'huggingface'),
        'torch.compile': Path(os.environ.get('TORCHINDUCTOR_CACHE_DIR') or temporary / f'torchinductor_{user}'),
    }
    for name, folder in folders.items():
        if not folder.is_dir():
            continue
        writable = os.access(folder, os.W_OK | os.X_OK)
        size, cut = size_of(folder)
        text = f'{folder}: {"more than " if cut else ""}{size / 2**20:,.0f} MiB'
        hint = '' if writable else 'This user cannot write it: change its owner, or the variable that names it.'
        yield Finding(f'cache of {name}', 'ok' if writable else 'warn', text, hint)


def size_of(folder: Path, seconds: float = 0.5) -> tuple[int, bool]:
    """Bytes of the files below a folder, and whether counting was cut off after ``seconds``."""
    total, end = 0, time.monotonic() + seconds
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue  # a file that another process has removed meanwhile
        if time.monotonic() > end:
            return total, True
    return total, False


def check_weights() -> Iterator[Finding]:
    from vq.io.pretrained import pretrained_root
    from vq.io.published.catalog import CATALOG

    root = pretrained_root()
    here = [entry.name for entry in CATALOG if all((root / remote.path).is_file() for remote in entry.files)]
    text = f'{len(here)} of {len(CATALOG)} published entries in {root}' + (f': {", ".join(here)}' if here else '')
    yield Finding('weights', 'ok', f'{text}; vq fetch lists all of them')


def check_compiler() -> Iterator[Finding]:
    """torch.compile makes C++ code on the CPU and, by Triton, C code on GPUs."""
    named = os.environ.get('CXX') or os.environ.get('CC')
    found = next(
        (path for name in (named, 'c++', 'g++', 'clang++', 'gcc', 'cc') if name and (path := shutil.which(name))), None
    )
    if found:
        yield Finding('compiler', 'ok', f'{found}, for strategy.compile')
    else:
        yield Finding('compiler', 'warn', 'no C compiler', 'strategy.compile needs one; everything else works without.')


def check_packages() -> Iterator[Finding]:
    missing: dict[str, list[str]] = {}
    for module, (extra, use) in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            missing.setdefault(extra, []).append(f'{module} ({use})')
        else:
            yield Finding(module, 'ok', f'{version_of(module)}: {use}')
    for extra, lacking in missing.items():
        yield Finding(f'vq[{extra}]', 'ok', f'optional, not installed: {", ".join(lacking)}')


def version_of(module: str) -> str:
    """Of the package with the name of the module, or else of the one that has the module."""
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        names = distributions().get(module)
        return importlib.metadata.version(names[0]) if names else 'installed'


@functools.cache
def distributions() -> Mapping[str, list[str]]:
    """Module -> packages. It takes a third of a second, as it reads what every installed package lists."""
    return importlib.metadata.packages_distributions()


def check_steps() -> Iterator[Finding]:
    """Three steps of the smallest shipped tokenizer on each device, the last one timed."""
    import torch

    devices = ['cpu', *(f'cuda:{index}' for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))]
    devices += ['mps'] if torch.backends.mps.is_available() else []
    logger = logging.getLogger('vq')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        for device in devices:
            yield step_on(device)
    finally:
        logger.setLevel(level)


def step_on(device: str) -> Finding:
    from vq.assembly import building
    from vq.assembly.compose import compose
    from vq.runners.context import RunContext

    name = f'training on {device}'
    try:
        with tempfile.TemporaryDirectory(prefix='vq-doctor-') as folder:
            overrides = {'.trainer.iters': 3, '.trainer.callbacks': {}, '.trainer.strategy.device': device}
            trainer = building.build_runner(compose('digits/vq_ema.py', {}, overrides, tiny=True), 'trainer', 0)
            trainer.bind(RunContext('doctor', Path(folder)))
            started = time.perf_counter()
            trainer.run()
            seconds = time.perf_counter() - started
    except (UserError, RuntimeError, OSError, ImportError) as error:
        hint = 'Training cannot work on this device.' if device == 'cpu' else 'Other devices may work: strategy.device.'
        return Finding(name, 'fail', f'{type(error).__name__}: {str(error).splitlines()[0]:.200}', hint)
    return Finding(name, 'ok', f'{trainer.step} steps of digits/vq_ema.py in its tiny form: {seconds:.2f} s')
