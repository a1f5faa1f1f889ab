"""Parameters with weight decay, and the state of an optimizer with groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.runners.support import build_trainer, quiet
from vq.quantizers.codebook import Codebook
from vq.runners.optimizers import adam_w, mark_undecayed


class Net(nn.Module):
    """One of each: a convolution, a matrix, biases, a norm, two embeddings, and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.GroupNorm(2, 4)
        self.codebook = Codebook(5, 4)
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
        self.table = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 2)


DECAYED = {'conv.weight', 'head.weight'}


@pytest.mark.parametrize('decay', ['all', 'matrices'])
def test_without_gradients_only_what_decays_shrinks(decay: Any) -> None:
    torch.manual_seed(0)
    net = Net()
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for parameter in parameters:
        nn.init.normal_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    mark_undecayed(net, parameters)
    optimizer = adam_w([{'params': parameters}], False, lr=0.5, weight_decay=0.1, decay=decay)
    optimizer.step()
    for name, parameter in net.named_parameters():
        shrunk = name in DECAYED or (decay == 'all' and name != 'frozen')
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.5 * 0.1 if shrunk else 1.0))


def test_parameters_that_nobody_marked_are_judged_by_their_dimensions() -> None:
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    groups = adam_w([{'params': parameters}], False, weight_decay=0.1, decay='matrices').param_groups
    assert [(group['weight_decay'], len(group['params'])) for group in groups] == [(0.1, 1), (0.0, 1)]


def test_state_is_kept_under_the_names_of_its_parameters(tmp_path: Path) -> None:
    """Groups change the order of parameters in an optimizer."""
    change = {
        **quiet(),
        '.trainer.optimizers.tokenizer': dict(type='AdamW', weight_decay=0.1, decay='matrices'),
    }
    trainer = build_trainer(tmp_path, dict(iters=2), change)
    trainer.run()
    root = trainer.roots['tokenizer']
    whole = dict(root.named_parameters())
    saved = trainer.state()[0]['optimizers']['tokenizer']
    assert sorted(saved['names']) == sorted(name for name, parameter in whole.items() if parameter.requires_grad)
    assert saved['names'] != list(whole)
    for index, name in enumerate(saved['names']):
        assert saved['state'][index]['exp_avg'] is trainer.optimizers['tokenizer'].state[whole[name]]['exp_avg']
    decayed = {name for name, _ in zip(saved['names'], saved['param_groups'][0]['params'], strict=False)}
    assert decayed == {name for name, parameter in whole.items() if parameter.ndim == 4}
