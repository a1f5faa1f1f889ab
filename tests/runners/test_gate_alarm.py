"""The alarm of gates fires on a planted zero gate, and on no other; the log has the size of each."""

from __future__ import annotations

import contextlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vq.core.errors import ConfigError
from vq.denoisers.unet.network import UNet
from vq.runners.callbacks.gate_alarm import GateAlarmCallback


def network(**more: Any) -> UNet:
    return UNet(3, (8, 8), 16, (1, 2), res_blocks=1, attention_at=(), **more)


def runner(model: nn.Module, step: int) -> Any:
    lines: list[tuple[int, str, dict[str, float]]] = []
    journal = SimpleNamespace(write=lambda *line: lines.append(line))
    return SimpleNamespace(
        model=model, step=step, lines=lines, journal=journal, strategy=SimpleNamespace(whole=contextlib.nullcontext)
    )


def test_a_closed_gate_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = network(adapter_type='RegionAttention', adapters_at=(1, 2), layout_dim=4)
    for adapter in model.adapters.values():
        nn.init.normal_(adapter.proj.weight, std=adapter.proj.in_features**-0.5)
    alarm = GateAlarmCallback(interval=10, after=20)

    def told(step: int) -> str:
        caplog.clear()
        alarm.bind(runner(model, step))
        with caplog.at_level(logging.WARNING, 'vq'):
            alarm.inspect()
        return caplog.text

    assert told(20) == '' and told(15) == '' and not alarm.runner.lines, 'all are open; 15 is no interval'
    nn.init.zeros_(model.adapters['up_0_1'].proj.weight)
    assert told(10) == '', 'in the first steps they are all small'
    text = told(30)
    assert '1 of 6 gates are below 0.01' in text and 'adapters.up_0_1' in text and 'down' not in text
    ((step, kind, sizes),) = alarm.runner.lines
    assert (step, kind) == (30, 'gates') and sizes['adapters.up_0_1'] == 0
    weight = model.adapters['down_0_0'].proj.weight
    assert sizes['adapters.down_0_0'] == pytest.approx(float(weight.detach().norm() / len(weight) ** 0.5), abs=1e-5)
    with torch.no_grad():
        model.adapters['up_0_1'].proj.weight.fill_(float('nan'))
    assert 'adapters.up_0_1' in told(30), 'nan is not open'


def test_what_has_no_gate_is_refused() -> None:
    with pytest.raises(ConfigError, match='UNet has no adapter with a gate'):
        GateAlarmCallback().bind(runner(network(), 1))
    with pytest.raises(ConfigError, match='interval 0'):
        GateAlarmCallback(interval=0)
