"""Files of samples: NumPy reads what is written, and what NumPy writes is mapped, not loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from vq.core.errors import UserError
from vq.io.adm import arrays_in, open_samples, write_samples

SAMPLES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)


def test_numpy_reads_what_is_written(tmp_path: Path) -> None:
    labels = np.arange(5)
    write_samples(tmp_path / 's.npz', iter(SAMPLES), SAMPLES.shape, {'arr_1': labels})
    with np.load(tmp_path / 's.npz', allow_pickle=False) as file:
        assert file.files == ['arr_0', 'arr_1']
        assert np.array_equal(file['arr_0'], SAMPLES) and file['arr_0'].dtype == np.uint8
        assert np.array_equal(file['arr_1'], labels)
    with zipfile.ZipFile(tmp_path / 's.npz') as archive:
        assert archive.testzip() is None
    assert np.array_equal(open_samples(tmp_path / 's.npz'), SAMPLES)


def test_the_same_pictures_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ('a', 'b'):
        write_samples(tmp_path / name, iter(SAMPLES), SAMPLES.shape)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_files_of_numpy_are_mapped_and_compressed_ones_read(tmp_path: Path) -> None:
    np.savez(tmp_path / 'plain.npz', SAMPLES, np.arange(5))
    np.savez_compressed(tmp_path / 'small.npz', SAMPLES)
    np.savez(tmp_path / 'columns.npz', np.asfortranarray(SAMPLES))
    for name, mapped in (('plain', True), ('small', False), ('columns', True)):
        found = open_samples(tmp_path / f'{name}.npz')
        assert np.array_equal(found, SAMPLES) and isinstance(found, np.memmap) is mapped
    assert arrays_in(tmp_path / 'plain.npz') == {
        'arr_0': (SAMPLES.shape, np.dtype(np.uint8)),
        'arr_1': ((5,), np.dtype(np.int64)),
    }


def test_what_would_have_to_be_run_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / 'objects.npz', np.array([{'a': 1}], dtype=object))
    with pytest.raises(UserError, match='object'):
        open_samples(tmp_path / 'objects.npz')


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='3 samples were given, and shape announces 5'):
        write_samples(tmp_path / 's.npz', iter(SAMPLES[:3]), SAMPLES.shape)
    with pytest.raises(UserError, match='sample 1 is uint8'):
        write_samples(tmp_path / 's.npz', iter([SAMPLES[0], SAMPLES[1, :2]]), SAMPLES.shape)
    assert not [*tmp_path.iterdir()]
