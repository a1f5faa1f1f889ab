"""Batches, pictures as bytes, named losses."""

from __future__ import annotations

import pytest
import torch

from vq.core.records import Batch, Losses, to_float, to_uint8

# pictures


def test_bytes_and_floats_are_inverse_for_all_values():
    values = torch.arange(256, dtype=torch.uint8)
    floats = to_float(values)
    assert torch.equal(to_uint8(floats), values)
    assert floats[0] == -1 and floats[-1] == 1 and floats.dtype == torch.float32


def test_bytes_are_rounded_not_cut():
    levels = torch.arange(256, dtype=torch.float64)
    for shift in (-0.49, 0.49):
        assert torch.equal(to_uint8(((levels + shift) / 127.5 - 1).float()), levels.to(torch.uint8))


def test_what_is_out_of_range_is_clipped_and_the_input_left_alone():
    image = torch.tensor([-3.0, -1.001, 1.001, 7.0])
    assert to_uint8(image).tolist() == [0, 0, 255, 255]
    assert image.tolist() == pytest.approx([-3.0, -1.001, 1.001, 7.0])


def test_bf16_pictures_are_within_one_level():
    values = torch.arange(256, dtype=torch.uint8)
    assert int((to_uint8(to_float(values).bfloat16()).int() - values.int()).abs().max()) <= 1


# batches


def make_batch() -> Batch:
    return Batch(
        image=torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8),
        id=['a', 'b'],
        key=torch.tensor([1, 2]),
        category=torch.tensor([3, 4]),
        text=['x', 'y'],
        extra={'depth': torch.ones(2), 'note': 'kept'},
    )


def test_to_moves_every_tensor_and_keeps_the_rest():
    batch = make_batch()
    moved = batch.to('meta')
    assert all(value.device.type == 'meta' for value in (moved.image, moved.key, moved.category, moved.extra['depth']))
    assert (moved.id, moved.text, moved.extra['note'], moved.boxes, len(moved)) == (['a', 'b'], ['x', 'y'], 'kept', None, 2)
    assert batch.image.device.type == 'cpu' and batch.extra['depth'].device.type == 'cpu'


def test_channels_last_changes_the_layout_of_images_only():
    moved = make_batch().to('cpu', channels_last=True)
    assert moved.image.is_contiguous(memory_format=torch.channels_last)
    assert moved.image.dtype == torch.uint8 and torch.equal(moved.key, torch.tensor([1, 2]))


# losses


def test_total_is_the_weighted_sum_and_gradients_flow():
    losses = Losses()
    value = torch.tensor(2.0, requires_grad=True)
    losses.add('a', value)
    losses.add('b', 3 * value, weight=0.5)
    losses.add('c', value.square(), weight=torch.tensor(-1.0))
    total = losses.total
    total.backward()
    assert float(total.detach()) == 2 + 3 - 4 and float(value.grad) == 1 + 1.5 - 4


def test_total_is_fp32_whatever_the_terms():
    losses = Losses()
    losses.add('a', torch.tensor(1.0, dtype=torch.bfloat16))
    losses.add('b', torch.tensor(2.0**-12, dtype=torch.bfloat16))
    assert losses.total.dtype == torch.float32 and float(losses.total) == 1 + 2**-12


def test_names_are_unique():
    losses = Losses()
    losses.add('a', torch.tensor(1.0))
    with pytest.raises(KeyError, match="two losses are called 'a'"):
        losses.add('a', torch.tensor(2.0))
