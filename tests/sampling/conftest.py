"""Every kind of path, by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vq.interfaces import Path
from vq.sampling.paths.betas import BetaPath
from vq.sampling.paths.cosine import CosinePath
from vq.sampling.paths.flow import FlowPath

PATHS: dict[str, Callable[[], Path]] = {
    'flow': FlowPath,
    'flow_shifted': lambda: FlowPath(shift=3.0),
    'cosine': CosinePath,
    'cosine_shifted': lambda: CosinePath(shift=4.0),
    'betas_linear': BetaPath,
    'betas_scaled': lambda: BetaPath('scaled_linear'),
    'betas_cosine': lambda: BetaPath('cosine', 100),
    'betas_sqrt': lambda: BetaPath('sqrt', 50),
    'betas_few': lambda: BetaPath('scaled_linear', 3, 0.3, 0.9),
}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> Path:
    return PATHS[request.param]()
