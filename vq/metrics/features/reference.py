"""Files of statistics of a reference set. Other tools can read them; reading checks that network and data agree.

Our files are ``.npz`` with ``mu`` and ``sigma`` (readable by pytorch-fid and clean-fid), ``mu_s`` and ``sigma_s`` for spatial
features (needed by ADM's evaluator), and ``vq``: a line of JSON that describes network, preprocessing and dataset. Files of
other tools have the arrays alone. A property that the file does not record is not checked, and the result reports that. A
file of features of single images is a reference too (``raw.py``).
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vq.core.environment import dry_run
from vq.core.errors import UserError
from vq.core.reading import parse_json
from vq.io import adm, atomic
from vq.io.covariance import fault_of
from vq.io.digest import file_digest
from vq.io.pretrained import pretrained_root
from vq.metrics.features.raw import FORMAT as RAW_FORMAT
from vq.metrics.features.raw import name_of_features, open_features
from vq.metrics.features.statistics import FeatureStatistics, Moments

FORMAT = 'vq.feature_statistics'
FORMAT_VERSION = 1
NAMES = {'pooled': ('mu', 'sigma'), 'spatial': ('mu_s', 'sigma_s')}  # field of Features -> arrays of the file
MUST_AGREE = ('network', 'preprocessing', 'precision', 'network_hash', 'image_size')
DRY = Path('work_dirs/dry_run/fid')  # statistics of dry runs, each in the folder of its run
REMAKE = 'Make them again: auto_torchrun -m vq.fid DATASET'


@dataclasses.dataclass
class Reference:
    """Moments by field of ``Features``, rows if they were kept, and a description of network and data."""

    name: str
    moments: dict[str, Moments]
    about: dict[str, Any]  # network, preprocessing, precision, network_hash, image_size, dataset, split, fingerprint, ...
    rows: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    hash: str = ''  # of the file

    def describe(self) -> dict[str, Any]:
        """The description of the reference in results."""
        count = next(iter(self.moments.values())).count
        said: dict[str, Any] = {
            key: self.about[key] for key in ('dataset', 'split', 'fingerprint', 'network_hash') if key in self.about
        }
        return {'name': self.name, 'hash': self.hash, 'count': count, **said}

    def check(self, measured: Mapping[str, Any]) -> list[str]:
        """Raise if the reference was measured in another way; return the names of properties that it does not record."""
        silent = []
        for field in MUST_AGREE:
            if field not in self.about:
                silent.append(field)
            elif field in measured and self.about[field] != measured[field]:
                raise UserError(
                    f"the reference '{self.name}' has {field} {self.about[field]!r}, and these images {measured[field]!r}",
                    'Measure both in one way, or choose another reference.' + (f' {REMAKE}' if field != 'image_size' else ''),
                )
        return silent


def reference_file(name: str | Path) -> Path:
    """``imagenet_validation`` -> ``pretrained/fid/imagenet_validation.npz``; a path stays as it is.

    A dry run finds the statistics of dry runs of ``vq.fid`` first.
    """
    path = Path(name)
    if path.suffix in ('.npz', '.pt', '.pth'):
        return path if path.is_absolute() or path.exists() else pretrained_root() / path
    found = sorted(DRY.glob(f'**/{path.name}.npz')) if dry_run() else []
    return found[0] if found else pretrained_root() / 'fid' / f'{name}.npz'


def dry_name(run: str) -> str:
    """The DATASET of a run of ``vq.fid``: ``fid/imagenet_train`` -> ``imagenet``."""
    return Path(run).name.removesuffix('_train')


def write_reference(path: Path, reference: Reference) -> None:
    """Write the file atomically."""
    arrays: dict[str, np.ndarray] = {}
    for field, moments in reference.moments.items():
        mean, covariance = NAMES[field]
        arrays |= {mean: moments.mean.numpy(), covariance: moments.covariance.numpy()}
    arrays |= {f'features_{field}': rows.numpy() for field, rows in reference.rows.items()}
    count = next(iter(reference.moments.values())).count
    about = {**reference.about, 'format': FORMAT, 'format_version': FORMAT_VERSION, 'count': count}
    arrays['vq'] = np.array(json.dumps(about, sort_keys=True))
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, stream.getvalue())


def read_reference(name: str | Path) -> Reference:
    """Read an ``.npz`` of ours, ADM, pytorch-fid or clean-fid, a ``.pt`` of torch-fidelity, or an ``.npz`` of features."""
    path = reference_file(name)
    if not path.is_file():
        made = sorted(file.stem for file in (pretrained_root() / 'fid').glob('*.npz'))
        have = f' There are: {", ".join(made)}.' if made else ''
        raise UserError(
            f'no statistics of a reference set at {path}', f'Write them with auto_torchrun -m vq.fid DATASET.{have}'
        )
    raw = name_of_features(path) if path.suffix == '.npz' else None
    if raw is not None:
        return _of_features(path, raw)
    arrays = _torch_arrays(path) if path.suffix in ('.pt', '.pth') else _numpy_arrays(path)
    about = _about(path, arrays)
    count = about.get('count')
    moments = {}
    for field, (mean, covariance) in NAMES.items():
        if mean in arrays and covariance in arrays:
            values, matrix = (_tensor(path, name, arrays[name]) for name in (mean, covariance))
            _check(path, field, values, matrix)
            moments[field] = Moments(values.double(), matrix.double(), count)
    if not moments:
        raise UserError(
            f'{path} has {", ".join(sorted(arrays)) or "no arrays"}, but no statistics',
            "Statistics are arrays 'mu' and 'sigma', features one array (N, D). Give a file of samples to vq.tools.fid.",
        )
    rows = {
        key.removeprefix('features_'): _rows(path, key, value) for key, value in arrays.items() if key.startswith('features_')
    }
    return Reference(Path(name).stem, moments, about, rows, file_digest(path)[:16])


def _of_features(path: Path, name: str) -> Reference:
    """Moments and rows of a file of features of single images."""
    rows = _rows(path, name, open_features(path, name))
    statistics = FeatureStatistics(rows.shape[1])
    statistics.update(rows)
    about = _about(path, _numpy_arrays(path))
    if about.get('count', len(rows)) != len(rows):
        raise UserError(f"{path} says that it has {about['count']} images, and '{name}' has {len(rows)}", REMAKE)
    return Reference(path.stem, {'pooled': statistics.compute()}, about, {'pooled': rows}, file_digest(path)[:16])


def _numpy_arrays(path: Path) -> dict[str, np.ndarray]:
    wanted = {'vq', *(name for pair in NAMES.values() for name in pair)}
    adm.arrays_in(path)  # their sizes are checked before memory is taken
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files if key in wanted or key.startswith('features_')}
    except adm.ERRORS as error:
        raise UserError(f'{path} is not a readable .npz file: {error}', 'Fetch it again, or make it again.') from error


def _torch_arrays(path: Path) -> dict[str, np.ndarray]:
    from vq.io.plain import read_torch

    state = read_torch(path)
    if not isinstance(state, dict):
        raise UserError(f'{path} holds a {type(state).__name__}', "Give a file with 'mu' and 'sigma'.")
    try:
        return {key: _array(key, value) for key, value in state.items() if key in ('mu', 'sigma')}
    except (ValueError, TypeError) as error:
        raise UserError(f'{path} is damaged: {error}', "Give a file with 'mu' and 'sigma'.") from error


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        return value.detach().double().numpy() if value.is_floating_point() else value.detach().numpy()
    found = np.asarray(value)
    if found.dtype == object:
        raise TypeError(f"'{name}' is a {type(value).__name__}")
    return found


def _about(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if 'vq' not in arrays:
        return {}
    try:
        about: dict[str, Any] = parse_json(str(arrays['vq']))
        if not isinstance(about, dict):
            raise ValueError(f'it is a {type(about).__name__}')
        version = about.get('format_version', 0)
        for name, value in {'format_version': version, 'count': about.get('count', 0)}.items():
            if value is not None and (type(value) is not int or value < 0):
                raise ValueError(f"its '{name}' is {value!r:.40}")
    except ValueError as error:
        raise UserError(f"{path} is damaged: its description 'vq' cannot be read: {error}", REMAKE) from error
    if about.get('format') not in (FORMAT, RAW_FORMAT) or version is None or version > FORMAT_VERSION:
        raise UserError(
            f'{path} is of the format {about.get("format")} {about.get("format_version")}',
            f'This version reads {FORMAT} up to {FORMAT_VERSION}.',
        )
    return about


def _tensor(path: Path, name: str, array: np.ndarray) -> Tensor:
    """The numbers of an array: in float64 unless they are complex or whole."""
    if array.dtype.kind not in 'fciu':
        raise UserError(f"{path}: '{name}' is {array.dtype}, not numbers", 'Fetch the file again, or make it again.')
    known = array.dtype.isnative and array.dtype.name in ('float16', 'float32', 'float64', 'complex64', 'complex128')
    return torch.from_numpy(array if known else array.astype(np.int64 if array.dtype.kind in 'iu' else np.float64))


def _rows(path: Path, name: str, array: np.ndarray) -> Tensor:
    """Features (n, D) of single images."""
    rows = _tensor(path, name, array)
    if rows.ndim != 2 or not rows.is_floating_point() or not bool(rows.sum(dtype=torch.float64).isfinite()):
        raise UserError(
            f"{path}: '{name}' is {array.dtype} of the shape {tuple(array.shape)}, or not finite: rows of features are needed",
            f'Fetch the file again, or make it again. {REMAKE}',
        )
    return rows


def _check(path: Path, field: str, mean: Tensor, covariance: Tensor) -> None:
    width = mean.numel()
    if mean.ndim != 1 or not width or tuple(covariance.shape) != (width, width):
        raise UserError(
            f'{path}: the mean of {field} features is {tuple(mean.shape)}, the covariance {tuple(covariance.shape)}',
            'Fetch the file again, or make it again.',
        )
    fault = fault_of(mean, covariance)
    if fault is not None:
        raise UserError(f'{path} has, for {field} features, {fault}', f'Fetch the file again, or make it again. {REMAKE}')
