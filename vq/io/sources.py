"""Where the weights of a trained part come from: a run, one of its checkpoints, or a file."""

from __future__ import annotations

from pathlib import Path

from vq.core.errors import UserError, listing, nearest
from vq.io import history
from vq.io.pretrained import pretrained_root

RUNS = Path('work_dirs')


def find_source(name: str) -> Path:
    """A checkpoint folder or a file. ``name`` is a file or folder, the NAME of a run, or a path below ``pretrained``.

    Of a run it is the newest complete checkpoint.
    """
    places = [Path(name).expanduser(), RUNS / name, pretrained_root() / name]
    # model.pth of documents that were written for others is model.safetensors here
    beside = [place.with_suffix('.safetensors') for place in places[:2] if place.suffix in ('.pth', '.pt', '.ckpt', '.bin')]
    place = next((place for place in (*places, *beside) if place.exists()), None)
    if place is None:
        runs = sorted(str(path.parent.relative_to(RUNS)) for path in RUNS.glob('**/checkpoints')) if RUNS.is_dir() else []
        raise UserError(
            f"there is no run, checkpoint or file '{name}'{nearest(name, runs)}",
            f'Runs in {RUNS}: {listing(runs) or "none"}.',
        )
    if place.is_file() or history.is_complete(place):
        return place
    newest = history.latest(place / 'checkpoints')
    if newest is None:
        raise UserError(f'{place} has no complete checkpoint', 'Train the run first.')
    return newest


def files_of(name: str | None) -> list[Path]:
    """The file that is read of a source, for ``pretrained_files``: asked in dry runs too, where it may be missing."""
    try:
        return [] if name is None else [weights_file(find_source(name))]
    except UserError:  # load_pretrained says so
        return [Path(name or '')]


def weights_file(source: Path) -> Path:
    """The file that is read of what ``find_source`` found: a checkpoint's moving average where it has one."""
    if source.is_file():
        return source
    marker = history.read_marker(source)
    average = marker is not None and 'ema.safetensors' in marker['files']
    return source / ('ema.safetensors' if average else 'model.safetensors')
