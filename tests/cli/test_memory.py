"""``python -m vq.config --memory``: predicted bytes against those of real steps, on the CPU and on two ranks."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.ranks import GlooPool
from tests.runners.gan import write_gan_config
from tests.runners.support import write_config
from vq.assembly import memory
from vq.assembly.building import build_runner
from vq.assembly.compose import compose
from vq.assembly.rehearsal import FP32_RESULT, IN_FP32, IN_HALF, IN_WIDEST, META, DeviceRules, LiveBytes
from vq.cli import config as command
from vq.core.config import PyConfig
from vq.data.loading import LoaderSettings
from vq.interfaces import Callback
from vq.io.sharded import local
from vq.io.spec import size_of
from vq.losses.reconstruction import L1Loss
from vq.registries import VQTaskRegistry
from vq.runners.callbacks.ema import EMACallback
from vq.runners.context import RunContext


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    monkeypatch.delenv('DRY_RUN', raising=False)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')


# against a real step


class Witness(Callback):
    """Measures the memory of one step of a run: the peak beyond state and gradients, and each of these after the step."""

    def __init__(self, step: int) -> None:
        self.step, self.held, self.gradients = step, {}, {}
        self.earlier: dict[str, list[Tensor]] = {}  # gradients of the step before: of ddp, views of buckets that stay

    def before_step(self) -> None:
        if self.runner.step + 1 == self.step:
            model = self.runner.model
            tensors = [local(value.detach()) for value in [*model.parameters(), *model.buffers()]]
            self.live = LiveBytes(torch.device('cpu'))
            self.live.leave_out(*tensors, *(gradient for found in self.earlier.values() for gradient in found))
            self.hooks = [
                parameter.register_post_accumulate_grad_hook(lambda found: self.live.leave_out(local(found.grad)))
                for parameter in model.parameters()
                if parameter.requires_grad
            ]
            self.live.__enter__()

    def optimize(self, name: str) -> None:
        parameters = (value for group in self.runner.optimizers[name].param_groups for value in group['params'])
        gradients = [self.runner.strategy.origin(parameter).grad for parameter in parameters]
        held = [local(gradient) for gradient in gradients if gradient is not None]
        if self.runner.step + 1 < self.step:
            self.earlier[name] = held
        elif self.runner.step + 1 == self.step:
            self.gradients[name] = sum(gradient.nbytes for gradient in held)

    def after_step(self) -> None:
        if self.runner.step != self.step:
            return
        self.live.__exit__(None, None, None)
        for hook in self.hooks:
            hook.remove()
        runner = self.runner
        shadows = [callback.shadow for callback in runner.callbacks.values() if isinstance(callback, EMACallback)]
        optimizers = [state for optimizer in runner.optimizers.values() for state in optimizer.state.values()]
        self.held = {
            'parameters': count(parameter for parameter in runner.model.parameters() if parameter.requires_grad),
            'optimizer': count(value for state in optimizers for value in state.values() if isinstance(value, Tensor)),
            'average': count(value for shadow in shadows for value in shadow.values()),
            'frozen': count(parameter for parameter in runner.model.parameters() if not parameter.requires_grad),
            'buffers': count(runner.model.buffers()),
            'activations': self.live.peak,
        }


def count(tensors) -> int:
    return sum(local(value.detach()).nbytes for value in tensors)


def witness(folder: Path, config: PyConfig, step: int) -> Witness:
    """Train up to ``step`` without callbacks that only log."""
    folder.mkdir(parents=True, exist_ok=True)
    config.trainer.iters = step
    config.trainer.callbacks = [
        callback for callback in config.trainer.callbacks if callback and callback.type == 'EMACallback'
    ]
    trainer = build_runner(config, 'trainer', 7)
    found = Witness(step)
    trainer.callbacks['witness'] = found
    trainer.bind(RunContext('test', folder, 7, config.dumps()))
    trainer.run()
    return found


def predicted(config: PyConfig, strategy: str, devices: int = 1, images: int | None = None) -> memory.Footprint:
    (found,) = [one for one in memory.footprints(config, [devices], images) if one.strategy == strategy]
    return found


MOMENTUM = dict(type='SGD', lr=0.1, momentum=0.9)
PLAIN_SGD = dict(type='SGD', lr=0.1)
# one kernel of group norms copies its input on all devices but the CPU: norms made of plain operations are alike everywhere
ALIKE = {f'.trainer.model.tokenizer.{part}.norm': 'group_unbiased' for part in ('encoder', 'decoder')}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('write', 'options', 'overrides', 'step'),
    [
        (write_gan_config, {}, {}, 5),
        (write_gan_config, {'norm': 'act', 'penalties': {}, 'quantizer': None}, {}, 4),
        (write_gan_config, {'batch_size': 5}, {'.trainer.strategy.accumulate': 2}, 5),
        (write_config, {}, {}, 4),
        (write_config, {}, {'.trainer.strategy.checkpoint_activations': True}, 4),
        (write_config, {}, {'.trainer.optimizers.tokenizer': MOMENTUM, '.trainer.strategy.accumulate': 2}, 4),
        (write_config, {}, {'.trainer.optimizers.tokenizer': PLAIN_SGD}, 4),
    ],
    ids=[
        'adversarial',
        'adversarial-codes-by-gradient',
        'adversarial-accumulated',
        'adam',
        'recomputed',
        'momentum-accumulated',
        'sgd',
    ],
)
def test_one_device_holds_what_a_real_step_holds(tmp_path, write, options, overrides, step):
    path = str(write(tmp_path))
    overrides = {**overrides, **ALIKE}
    config = compose(path, options, overrides)
    found = predicted(config, 'base')
    real = witness(tmp_path / 'run', config, step)
    gradients = real.gradients.values()
    accumulated = '.trainer.strategy.accumulate' in overrides
    expected = {**real.held, 'gradients': sum(gradients) if accumulated else max(gradients)}
    activations = expected.pop('activations')
    assert {name: found.parts[name] for name in expected} == expected
    # on the CPU alone torch's mse_loss leaves its result in the storage of all squares: of pixels, and of fewer features
    pixels = config.trainer.dataloader.batch_size * 3 * math.prod(size_of(config.trainer.dataset))
    assert 0 <= activations - found.parts['activations'] <= 2 * 4 * pixels < 0.1 * activations
    assert found.total == sum(expected.values()) + found.parts['activations']
    assert found.images == config.trainer.dataloader.batch_size


@pytest.mark.slow
@pytest.mark.parametrize(
    'file',
    [
        'digits/vqgan.py',
        'vqgan/8192_imagenet_ddp.py',
        'vqgan/1024_r1_lecam_imagenet_ddp.py',
        'vqgan/gumbel_f8_8192_imagenet_ddp.py',
        'vqgan/8192_stylegan2_imagenet_ddp.py',
    ],
)
def test_shipped_configs_hold_about_as_much_on_the_cpu(tmp_path, file):
    """Approximately, as LPIPS, group norms and others use other algorithms on the CPU than on GPUs, which are predicted."""
    config = compose(file, {}, {}, tiny=True)
    config.trainer.model.update(discriminator_start=0, warmup=0)
    found = predicted(config, 'base')
    with torch.device('meta'):
        step = VQTaskRegistry.build(config.trainer.model, 'model').heaviest_step()
    real = witness(tmp_path / 'run', config, step)
    assert real.held['activations'] == pytest.approx(found.parts['activations'], rel=0.1)
    assert {name: real.held[name] for name in ('parameters', 'optimizer', 'average')} == {
        name: found.parts[name] for name in ('parameters', 'optimizer', 'average')
    }
    assert real.held['buffers'] + real.held['frozen'] == found.parts['buffers'] + found.parts['frozen']


# closed forms


def test_live_bytes_follow_every_tensor_from_its_making_to_its_end():
    live = LiveBytes(META)
    known = torch.empty(100, device='meta')
    live.leave_out(known)
    with live:
        known.add_(1)
        first = torch.empty(10, 3, device='meta')  # 120 bytes
        view = first.t()
        second = first + view.t()  # 240 in all
        del first
        assert (live.now, live.peak) == (240, 240)  # the view holds it
        del view
        third = second.double()  # 120 + 240
        assert (live.now, live.peak) == (360, 360)
        live.leave_out(third)
        assert (live.now, live.peak) == (120, 360)
        del second, third
    assert (live.now, live.peak) == (0, 360)


def test_what_backward_needs_is_counted_once_however_many_need_it():
    width, rows = 7, 5
    weight = torch.empty(width, width, device='meta', requires_grad=True)
    live = LiveBytes(META)
    live.leave_out(weight)
    with live:
        x = torch.empty(rows, width, device='meta')
        h = torch.relu(x @ weight)  # the product is let go: relu keeps its result, the product its inputs
        y = (h * h).sum()
    assert live.now == x.nbytes + h.nbytes + y.nbytes
    assert live.peak == x.nbytes + 2 * h.nbytes + y.nbytes


# autocast


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        (IN_HALF, 'LOWER_PRECISION_FP'),
        (IN_FP32, 'FP32'),
        (FP32_RESULT, 'FP32_SET_OPT_DTYPE'),
        (IN_WIDEST, 'PROMOTE'),
    ],
)
def test_the_lists_of_autocast_are_those_of_torch(ours, theirs):
    header = Path(torch.__file__).parent / 'include/ATen/autocast_mode.h'
    if not header.exists():
        pytest.skip('this torch comes without its headers')
    _, _, text = header.read_text().partition(f'#define AT_FORALL_{theirs}(_)')
    listed = set(re.findall(r'_\((\w+)', text.partition('\n\n')[0]))
    public = {name for name in listed if not name.startswith('_')}
    assert len(public) > 5 and public <= ours
    composed = {
        'multi_head_attention_forward',
        'square',
        'cross_entropy',
        'interpolate',
        'normalize',
        'softmin',
        'grid_sample',
    }
    elsewhere = {'norm', 'rms_norm'}  # norm is on a list of its own, and torch 2.9 does not list rms_norm
    assert {name for name in ours - public - composed if not name.startswith('__')} <= elsewhere


def test_precision_is_that_of_real_autocast_where_both_have_the_same_rules():
    """Convolutions, linear layers and operations without a rule behave alike on CPU and CUDA, and so do their bytes."""

    def peak(device: str) -> tuple[int, int]:
        torch.manual_seed(0)
        with torch.device(device):
            net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(4 * 36, 5))
            image = torch.zeros(2, 3, 8, 8)
        live, casts = LiveBytes(torch.device(device)), {}
        live.leave_out(image, *net.parameters())

        def casted(parameter: nn.Parameter, half: Tensor) -> None:
            casts[parameter] = half.nbytes

        autocast = DeviceRules(torch.bfloat16, casted) if device == 'meta' else torch.autocast('cpu', torch.bfloat16)
        with live:
            with autocast:
                y = net(image) + net(image)  # weights are cast once for both
                assert y.dtype == torch.bfloat16
            loss = y.float().square().mean()
            forward = live.peak
            loss.backward()
        assert sum(casts.values()) in (0, sum(2 * parameter.numel() for parameter in net.parameters()))
        return forward, live.peak

    assert peak('meta') == peak('cpu')


# several devices


def held_by_a_rank(path: str, folder: str, options: dict[str, Any], step: int) -> tuple[dict[str, int], dict[str, int]]:
    os.environ.pop('DRY_RUN', None)
    found = witness(Path(folder), compose(path, options, {}), step)
    return found.held, found.gradients


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_a_rank_of_two_holds_what_was_predicted(tmp_path: Path, gloo_pool: GlooPool, strategy: str) -> None:
    path, options = str(write_gan_config(tmp_path)), {'strategy': strategy, 'width': 10}
    found = predicted(compose(path, options, {}), strategy, 2)
    ranks = gloo_pool.run(held_by_a_rank, path, str(tmp_path / 'run'), options, 5)
    held, gradients = ranks[0]
    for name in ('parameters', 'optimizer', 'average', 'buffers'):
        assert found.parts[name] == held[name] >= ranks[1][0][name], name
    # the critic is small, so under fsdp the tokenizer's parts are the most; buckets of ddp stay
    assert found.parts['gradients'] == (sum if strategy == 'ddp' else max)(gradients.values())
    assert held['activations'] <= 1.02 * (found.parts['activations'] + found.parts['gathered'])


# rules that small runs do not use


def test_rows_are_cut_as_fsdp_cuts_them():
    sizes = [memory.part_bytes(torch.empty(10, 3, device='meta'), count) for count in (1, 3, 4, 10, 64)]
    assert sizes == [120, 48, 36, 12, 12]  # 10, 4, 3, 1 and 1 rows of 12 bytes


def test_what_fsdp_gathers_follows_the_blocks():
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.inner = nn.Linear(width, width)

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(map(Block, (2, 4, 6)))
            self.stem = nn.Linear(3, 5)

        def shard_blocks(self) -> list[nn.Module]:
            return [*self.blocks]

    plan = memory.ShardPlan(Root())
    own, small, middle, large = 4 * 15, 4 * 4, 4 * 16, 4 * 36  # weights; biases are vectors, which stay whole
    assert plan.gathered(None, keep_blocks=False) == 2 * own + large + middle + 2 * large
    assert plan.gathered(torch.bfloat16, keep_blocks=False) == 2 * own + (large + middle) // 2 + large // 2 + large
    assert plan.gathered(None, keep_blocks=True) == 2 * own + large + middle + small + 2 * large
    plan.kept = True  # by a second-order penalty, in fp32
    assert plan.gathered(torch.bfloat16, keep_blocks=False) == 2 * own + large + middle + small + 2 * large


@pytest.mark.parametrize(
    ('strategy', 'in_total', 'expected'),
    [('ddp', False, [12, 12]), ('ddp', True, [6, None]), ('xla', False, [6, None]), ('xla', True, [6, None])],
)
def test_the_batch_of_a_device_is_that_of_a_run(strategy, in_total, expected):
    settings = LoaderSettings(batch_size=12, batch_size_in_total=in_total)
    assert [memory.per_device(settings, strategy, count) for count in (2, 5)] == expected
    if strategy == 'ddp' and None not in expected:
        assert expected == [settings.per_rank(count) for count in (2, 5)]


@pytest.mark.parametrize(
    ('warmup', 'intervals', 'step'), [(0, (), 3), (1, (), 4), (5, (4,), 11), (8, (4,), 11), (3, (2, 3), 9)]
)
def test_the_heaviest_step_has_voice_and_every_penalty(tmp_path, warmup, intervals, step):
    penalties = {f'r{interval}': dict(type='R1Penalty', interval=interval) for interval in intervals}
    config = compose(str(write_gan_config(tmp_path)), {'start': 2, 'warmup': warmup, 'penalties': penalties}, {})
    with torch.device('meta'):
        model = VQTaskRegistry.build(config.trainer.model, 'model')
    assert model.heaviest_step() == step
    assert model._strength(step) > 0
    assert all((step - model.discriminator_start - 1) % interval == 0 for interval in intervals)


# the command


def rows_of(printed: str) -> list[dict[str, str]]:
    lines = [re.split(r'  +', line.strip()) for line in printed.splitlines() if not line.endswith('see --batch')]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


@pytest.mark.slow
def test_the_table_adds_up(tmp_path, capsys):
    path = str(write_gan_config(tmp_path))
    arguments = [path, '--memory', '--devices', '8', '1', '3', '--config-options', 'batch_size:16', 'batch_size_in_total:True']
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    rows = rows_of(printed)
    assert [(row['strategy'], row['devices'], row['images']) for row in rows] == [
        *(('base', '1', '16'), ('xla', '1', '16')),
        *(('ddp', '3', '-'), ('fsdp', '3', '-'), ('xla', '3', '-')),
        *(('ddp', '8', '2'), ('fsdp', '8', '2'), ('xla', '8', '2')),
    ]
    assert printed.splitlines()[-1] == '16 images do not divide among 3 devices: see --batch'
    for row in rows:
        parts = [value for name, value in row.items() if name not in ('strategy', 'devices', 'images', 'total')]
        if row['images'] == '-':
            assert row['activations'] == row['total'] == '-'
        else:
            assert float(row['total']) == pytest.approx(sum(map(float, parts)), abs=0.05 * (len(parts) + 1))
    assert 'frozen' not in rows[0] and 'casts' not in rows[0]  # there are none


def test_batch_is_per_device_whatever_the_config_says(tmp_path, capsys):
    path = str(write_config(tmp_path))
    assert command.main([path, '--memory', '--devices', '1', '7', '--batch', '5']) == 0
    assert {row['images'] for row in rows_of(capsys.readouterr().out)} == {'5'}


@pytest.mark.parametrize('wrong', [['--devices', '0'], ['--batch', '-1'], ['--devices', 'all']])
def test_numbers_that_are_none_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(['digits/vq_ema.py', '--memory', *wrong])
    assert ended.value.code == 2 and 'is not a whole number from 1 up' in capsys.readouterr().err


def test_without_a_trainer_there_is_nothing_to_say(tmp_path, capsys):
    (tmp_path / 'only.py').write_text("validator = dict(type='Validator')")
    assert command.main([str(tmp_path / 'only.py'), '--memory']) == 2
    assert "the config has no 'trainer'" in capsys.readouterr().err


def test_a_part_that_looks_at_values_is_an_error_that_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(L1Loss, 'forward', lambda self, prediction, target: prediction.sum() * target.max().item())
    assert command.main([str(write_gan_config(tmp_path)), '--memory', '--devices', '1']) == 2
    assert 'cannot be rehearsed on the meta device' in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_shows_what_the_command_prints(capsys):
    page = (Path(__file__).parents[2] / 'docs' / 'scaling.md').read_text()
    blocks = re.findall(r'^```console\n\$ python -m vq\.config (.*?--memory.*?)\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    assert blocks
    for arguments, shown in blocks:
        assert command.main(arguments.split()) == 0
        assert capsys.readouterr().out == shown, f'docs/scaling.md: run python -m vq.config {arguments} again'
