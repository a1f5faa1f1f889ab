"""Thresholds on the data: closed forms, and what samplers make of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.sampling.paths.flow import FlowPath
from vq.sampling.predictions import data_and_noise
from vq.sampling.thresholds import Thresholded, clamped, dynamic


def test_forms() -> None:
    x0 = torch.tensor([[-3.0, -0.5, 0.0, 1.0, 2.0], [0.1, -0.2, 0.3, 0.4, -0.5]])
    assert torch.equal(clamped(x0), torch.tensor([[-1.0, -0.5, 0.0, 1.0, 1.0], [0.1, -0.2, 0.3, 0.4, -0.5]]))
    # absolute values 0, 0.5, 1, 2, 3: the quantile 0.75 is 2; a quantile below the limit changes nothing
    torch.testing.assert_close(dynamic(x0, 0.75), torch.tensor([[-1.0, -0.25, 0.0, 0.5, 1.0], [0.1, -0.2, 0.3, 0.4, -0.5]]))
    torch.testing.assert_close(dynamic(x0, 0.75, limit=4.0), x0)
    torch.testing.assert_close(dynamic(x0, 0.75, limit=0.5)[0], torch.tensor([-0.5, -0.125, 0.0, 0.25, 0.5]))


@pytest.mark.parametrize('kind', ['velocity', 'v', 'x0', 'epsilon', 'score'])
@pytest.mark.parametrize('quantile', [None, 0.9])
def test_the_estimate_of_any_kind_is_kept_within_the_limit(kind: str, quantile: float | None) -> None:
    path, z = FlowPath(), torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        return Prediction(4 * z, kind, z)  # type: ignore[arg-type]

    found = Thresholded(denoise, path, quantile=quantile)(z, 0.5, None)
    x0, _ = data_and_noise(denoise(z, 0.5, None), z, path.level_at(0.5))
    expected = clamped(x0) if quantile is None else dynamic(x0, quantile)
    assert found.kind == 'x0' and found.variance is z
    torch.testing.assert_close(found.value, expected)
    assert found.value.abs().max() <= 1 + 1e-6 and x0.abs().max() > 1


def test_settings_without_sense_are_refused() -> None:
    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        return Prediction(z, 'epsilon')

    with pytest.raises(ConfigError, match='threshold on the data is 0'):
        Thresholded(denoise, FlowPath(), limit=0.0)
    with pytest.raises(ConfigError, match=r'quantile of the threshold is 1\.5'):
        Thresholded(denoise, FlowPath(), quantile=1.5)
    with pytest.raises(ConfigError, match='estimates epsilon'):
        Thresholded(denoise, FlowPath())(torch.ones(2, 3), 1.0, None)
