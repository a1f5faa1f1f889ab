"""``vq export`` of a DiT: diffusers' network gives its outputs, from the written folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.published import read_golden
from vq.cli import convert
from vq.cli.export import main
from vq.cli.export_denoiser import export_dit
from vq.conditioners.classes import ClassConditioner
from vq.core.conditions import Condition
from vq.core.errors import UserError
from vq.denoisers.dit import DiT
from vq.denoisers.wide_head import WideHeadDiT
from vq.io.diffusers_dit import PERIOD


def parts(**settings) -> tuple[DiT, ClassConditioner]:
    torch.manual_seed(0)
    given = {'channels': 3, 'cells': (8, 8), 'dim': 24, 'depth': 2, 'heads': 3, 'time_period': PERIOD, **settings}
    denoiser, conditioner = DiT(**given), ClassConditioner(7, 24, std=1.0)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return denoiser.eval(), conditioner.eval()


@pytest.mark.slow  # the import of diffusers takes seconds
@pytest.mark.parametrize('settings', [dict(learned_variance=True), dict(patch=4, timesteps=50)])
def test_outputs_are_those_of_diffusers(settings, tmp_path):
    import diffusers

    denoiser, conditioner = parts(**settings)
    about = export_dit(denoiser, conditioner, tmp_path / 'out')
    assert about == json.loads((tmp_path / 'out' / 'vq.json').read_text()) and about['exact']
    theirs = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / 'out').eval()
    steps, category = about['timesteps'], torch.tensor([0, 6, 3])
    index, z = torch.tensor([0, steps // 3, steps - 1]), torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        for null in (False, True):
            classes = torch.full_like(category, about['null_class']) if null else category
            wanted = theirs(z, timestep=index, class_labels=classes).sample
            condition = conditioner(None if null else Condition(category=category), 3)
            found = denoiser(z, (index + 1) / steps, condition)
            ours = found.value if found.variance is None else torch.cat([found.value, found.variance], 1)
            torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.slow
def test_a_converted_file_becomes_the_layout_of_the_published_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """diffusers' own files have these weights, and other frequencies of time: only --inexact writes them, and says so."""
    import diffusers

    peer = read_golden('dit_a')
    torch.save(peer.state, tmp_path / 'dit.pt')
    assert convert.main(['dit', str(tmp_path / 'dit.pt'), '--options', 'heads:4']) == 0
    file = str(tmp_path / 'dit.pt.converted')
    assert main([file, str(tmp_path / 'out')]) == 2
    assert 'period 10000' in capsys.readouterr().err and not (tmp_path / 'out').exists()
    assert main([file, str(tmp_path / 'out'), '--inexact']) == 0
    assert 'not equal' in capsys.readouterr().out
    theirs, found = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / 'out', output_loading_info=True)
    assert not found['missing_keys'] and not found['unexpected_keys']
    # without the influence of time the outputs are equal
    for block in theirs.transformer_blocks:
        torch.nn.init.zeros_(block.norm1.emb.timestep_embedder.linear_1.weight)
    state = {**peer.state, 't_embedder.mlp.0.weight': torch.zeros_like(peer.state['t_embedder.mlp.0.weight'])}
    converted = convert_state(state)
    z, y = peer['in/x'], peer['in/y']
    with torch.no_grad():
        found = converted[0](z, torch.ones(4), converted[1](Condition(category=y), 4))
        wanted = theirs(z, timestep=torch.zeros(4), class_labels=y).sample
    ours = torch.cat([found.value, found.variance], 1)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def convert_state(state: dict[str, torch.Tensor]) -> tuple[torch.nn.Module, torch.nn.Module]:
    from vq.io.published.dit import convert
    from vq.registries import VQConditionerRegistry, VQDenoiserRegistry

    made = convert(state, heads=4)
    model = torch.nn.Module()
    model.denoiser = VQDenoiserRegistry.build(made.denoiser, 'denoiser')
    model.conditioner = VQConditionerRegistry.build(made.conditioner, 'conditioner')
    model.load_state_dict(made.tensors)
    model.eval()
    return model.denoiser, model.conditioner


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(mlp='swiglu'), 'the form of its blocks'),
        (dict(mlp_ratio=2.0), 'mlp_ratio 2 instead of 4'),
        (dict(cells=(8, 4)), 'no square'),
        (dict(timesteps=None), 'without an index'),
        (dict(time_period=10000.0), 'its outputs would differ'),
    ],
)
def test_what_has_no_layout_there(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export_dit(*parts(**settings), tmp_path / 'out')
    assert not list(tmp_path.iterdir())


def test_other_denoisers_have_no_layout_there(tmp_path):
    with pytest.raises(UserError, match='WideHeadDiT with ClassConditioner'):
        export_dit(WideHeadDiT(2, (2, 2), 8, 1, 2, 8, 1, 2), parts()[1], tmp_path / 'out')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'file').touch()
    with pytest.raises(UserError, match='already exists'):
        export_dit(*parts(), tmp_path / 'out')
