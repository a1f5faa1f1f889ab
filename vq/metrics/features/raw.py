"""Files of the features of single images, from which the statistics of a reference are computed.

Ours are ``.npz`` with ``features``, fp32 (N, D), ``ids`` (N,), the ids of the samples, and ``vq``: a line of JSON that
describes network, preprocessing and dataset. A file of another tool has one array of features, of any name.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vq.core.errors import UserError, listing
from vq.io import adm, atomic

FORMAT = 'vq.features'
FORMAT_VERSION = 1
FEATURES, IDS, ABOUT = 'features', 'ids', 'vq'
OF_STATISTICS = ('mu', 'sigma', 'mu_s', 'sigma_s')
WIDTH = 2048  # of the pooled features of Inception


def write_features(path: Path, rows: Tensor, ids: Sequence[str], about: Mapping[str, Any]) -> None:
    """Write rows (N, D) and their ids atomically, without a copy of the rows."""
    described = {**about, 'format': FORMAT, 'format_version': FORMAT_VERSION, 'count': len(rows)}
    arrays = {
        FEATURES: rows.float().contiguous().numpy(),
        IDS: np.array(list(ids)),
        ABOUT: np.array(json.dumps(described, sort_keys=True)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.atomic_file(path, rows.numel() * 4) as writer,
        zipfile.ZipFile(writer, 'w', zipfile.ZIP_STORED) as archive,  # type: ignore[arg-type, call-overload]
    ):
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w', force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def name_of_features(path: Path) -> str | None:
    """The array of an ``.npz`` that holds features, floating-point (N, D); None if the file holds something else.

    Of several such arrays it is the one called ``features``, else the one of Inception's 2,048 channels.
    """
    arrays = adm.arrays_in(path)
    if any(name in arrays for name in OF_STATISTICS):
        return None
    found = [name for name, (shape, dtype) in arrays.items() if len(shape) == 2 and dtype.kind == 'f' and 0 not in shape]
    if FEATURES in found or len(found) < 2:
        return FEATURES if FEATURES in found else next(iter(found), None)
    wide = [name for name in found if arrays[name][0][1] == WIDTH]
    if len(wide) != 1:
        shapes = listing(f"'{name}' {arrays[name][0]}" for name in found)
        raise UserError(f'{path} has several arrays that could be features: {shapes}', f"Call one of them '{FEATURES}'.")
    return wide[0]


def open_features(path: Path, name: str) -> np.ndarray:
    """The array (N, D), in memory."""
    try:
        return np.array(adm.open_array(path, name))
    except (*adm.ERRORS, KeyError) as error:
        raise UserError(f'{path} is not a readable .npz file: {error}', 'Fetch it again, or make it again.') from error
