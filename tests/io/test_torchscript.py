"""TorchScript archives: the tensors of ``torch.jit.load`` without its program."""

# without annotations from the future: TorchScript reads those of functions

import io
import pickle
import pickletools
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vq.core.errors import UserError
from vq.io import torchscript
from vq.io.plain import read_torch
from vq.io.weights import read_weights


class Block(nn.Module):
    """A half, a view, a scalar, an empty tensor, a tied weight, modules by number; and attributes that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Parameter(torch.randn(3, 4).half())
        self.register_buffer('view', torch.arange(24).view(2, 3, 4)[:, 1:].transpose(0, 2))
        self.register_buffer('count', torch.tensor(7))
        self.register_buffer('none', torch.zeros(0, 3, dtype=torch.bfloat16))
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 4, bias=False)))
        self.tied = self.layers[0]
        self.factor, self.size, self.names = 0.5, (1, 2), ['a', 'b']

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.tied(self.layers(x)) * self.factor * self.count
        return result


def test_it_has_the_tensors_of_the_module(tmp_path: Path) -> None:
    module, file = Block().eval(), tmp_path / 'archive.pt'
    torch.jit.script(module).save(str(file))
    expected = module.state_dict()
    found, source = read_weights(file)
    assert sorted(found) == sorted(expected) and source.kind == 'torch'
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
    assert not torchscript.is_archive(save(tmp_path / 'plain.pt', expected))


def save(file: Path, value: object) -> Path:
    torch.save(value, file)
    return file


class Trap(nn.Module):
    """Loading it runs ``__setstate__``, which writes a file."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker, self.training = marker, False
        self.written = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.marker, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.marker, self.training = state
        self.written = torch.from_file(self.marker, shared=True, size=4)


def test_its_program_does_not_run(tmp_path: Path) -> None:
    marker, file = tmp_path / 'written_by_the_file', tmp_path / 'trap.pt'
    torch.jit.script(nn.Sequential(nn.Linear(4, 4), Trap(str(marker)))).save(str(file))
    assert sorted(read_weights(file)[0]) == ['0.bias', '0.weight'] and not marker.exists()
    torch.jit.load(str(file))
    assert marker.exists(), 'the trap works'


def with_tree(source: Path, target: Path, tree: bytes) -> Path:
    """The archive with another pickle."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
        for record in old.infolist():
            new.writestr(record, tree if record.filename.endswith('/data.pkl') else old.read(record))
    return target


class Touch:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.marker,)


def test_bad_trees_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / 'archive.pt'
    torch.jit.script(nn.Linear(2, 2)).save(str(archive))
    with zipfile.ZipFile(archive) as opened:
        tree = opened.read('archive/data.pkl')
    assert sorted(read_torch(archive)) == ['bias', 'weight']

    marker, evil = tmp_path / 'touched', io.BytesIO()
    pickle.Pickler(evil, protocol=2).dump(Touch(marker))
    beyond = tree.replace(b'K\x02K\x02\x86', b'K\x02K\x7f\x86').replace(b'(K\x02K\x02t', b'(K\x02K\x7ft')
    assert beyond != tree, [str(opcode) for opcode in pickletools.genops(tree)]
    itself = b'\x80\x02c__torch__\nM\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00ub.'
    for name, bad, message in (
        ('beyond', beyond, 'damaged|out of bounds'),
        ('evil', evil.getvalue(), 'no function'),
        ('cut', tree[: len(tree) // 2], 'damaged'),
        ('empty', b'\x80\x02t.', 'damaged'),
        ('strange', b'\x80\x04\x8f.', 'none of TorchScript'),
        ('quantized', tree.replace(b'_rebuild_tensor_v2', b'_rebuild_qtensor'), '_rebuild_qtensor'),
        ('itself', itself, 'contain each other'),
    ):
        with pytest.raises(UserError, match=message):
            read_torch(with_tree(archive, tmp_path / f'{name}.pt', bad))
    assert not marker.exists()
