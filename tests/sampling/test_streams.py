"""Random numbers of a sample depend on that sample only."""

from __future__ import annotations

import torch

from vq.sampling.streams import uniforms


def test_numbers_depend_on_the_id_and_not_on_the_batch():
    whole = uniforms(3, [5, 900, 2, 7], 4, 3)
    assert whole.shape == (4, 4, 3) and whole.dtype == torch.float32
    assert whole.min() >= 0 and whole.max() < 1
    for row, sample in enumerate((5, 900, 2, 7)):
        assert torch.equal(uniforms(3, [sample], 4, 3)[0], whole[row])
    assert torch.equal(uniforms(3, [7, 2, 2], 4, 3), whole[[3, 2, 2]])


def test_numbers_are_those_of_the_position_whatever_the_shape():
    assert torch.equal(uniforms(0, [1], 6, 7).flatten(), uniforms(0, [1], 42).flatten())


def test_ids_seeds_and_purposes_have_streams_of_their_own():
    streams = [uniforms(0, [1], 16), uniforms(1, [1], 16), uniforms(0, [2], 16), uniforms(0, [1], 16, purpose='order')]
    assert len({tuple(stream.flatten().tolist()) for stream in streams}) == 4


def test_numbers_are_uniform():
    """Chi-square over 20 bins, fixed seed; 36.2 is exceeded once in a hundred."""
    counts = torch.histc(uniforms(0, range(100), 200), 20, 0, 1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 36.2


def test_no_samples_give_no_rows_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    assert uniforms(0, [], 2, 3).shape == (0, 2, 3)
    uniforms(0, [1], 5)
    assert torch.equal(torch.get_rng_state(), before)
