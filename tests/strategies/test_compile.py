"""torch.compile by parts: whole, equal to eager for every shipped tokenizer, in place, and no more often than it must."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ranks import GlooPool
from tests.strategies.speed_runs import (
    assert_steps_agree,
    build_task,
    make_batch,
    one_step,
    placed,
    small,
    tokenizers,
    train_gan,
    train_gan_with,
    watch,
)
from tests.tasks.recipes import make_task
from vq.assembly.compose import checked
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.interfaces import Task
from vq.losses.penalties import R1Penalty
from vq.losses.perceptual import LPIPSLoss
from vq.nn.eager import eager
from vq.quantizers.gumbel import GumbelQuantizer
from vq.registries import VQStrategyRegistry
from vq.strategies.base import BaseStrategy
from vq.strategies.compiling import CompileSettings, compile_part, usual_parts

NETWORKS = ('tokenizer.encoder', 'tokenizer.quantizer', 'tokenizer.decoder')


@pytest.fixture(autouse=True)
def _forget_programs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def programs() -> Iterator[list[str]]:
    """The graphs that the back end 'counted' was given, by the name of the first parameter or input."""
    seen: list[str] = []

    def counted(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.append(str(next(iter(graph.graph.nodes))))
        return graph.forward

    torch._dynamo.register_backend(counted, 'counted')
    yield seen
    torch._dynamo.backends.registry._COMPILER_FNS.pop('counted')


COMPILED: set[str] = set()  # programs that were found to equal eager: many tokenizers share most of theirs


@pytest.mark.slow
@pytest.mark.parametrize('entry', tokenizers())
def test_every_network_of_every_shipped_tokenizer_compiles_whole_and_equals_eager(entry: str) -> None:
    """Of configs that differ in numbers alone one, and of those each program once. ``fullgraph``: no graph break passes."""
    theirs, ours = build_task(entry), build_task(entry)
    networks = watch(theirs, small(entry).trainer.model)
    expected = one_step(*placed(theirs))
    programs = {name: repr(network.notes) for name, network in networks.items()}
    new = tuple(name for name, program in programs.items() if program not in COMPILED)
    if new:
        assert_steps_agree(one_step(*compiled(ours, 'aot_eager', new)), expected, 1e-5)
        assert_states_agree(ours, theirs)
    COMPILED.update(programs.values())


@pytest.mark.slow
@pytest.mark.parametrize('entry', ['digits/vqgan.py'])
def test_compiled_kernels_equal_eager(entry: str) -> None:
    theirs, ours = build_task(entry), build_task(entry)
    assert_steps_agree(one_step(*compiled(ours, 'inductor')), one_step(*placed(theirs)), 1e-5)
    assert_states_agree(ours, theirs)


def compiled(task: Task, backend: str, parts: tuple[str, ...] | None = None) -> Any:
    return placed(task, compile=CompileSettings(backend, parts=parts, fullgraph=True))


def assert_states_agree(ours: Task, theirs: Task) -> None:
    """Running statistics, and codebooks after their update."""
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_perceptual_loss_compiles_whole_and_equals_eager() -> None:
    torch.manual_seed(0)
    loss = LPIPSLoss(net='squeeze')
    image, target = torch.rand(2, 2, 3, 32, 32).mul(2).sub(1)
    results = []
    for compiled in (False, True):
        if compiled:
            compile_part(loss, CompileSettings('aot_eager', fullgraph=True))
        leaf = image.clone().requires_grad_()
        value = loss(leaf, target)
        results.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
    (theirs, expected), (ours, found) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


class TestParts:
    def test_usual_ones_are_the_networks(self) -> None:
        task = build_task('vqgan/1024_r1_lecam_imagenet_ddp.py')
        assert list(usual_parts(task)) == [*NETWORKS, 'losses.lpips', 'discriminator']

    @pytest.mark.slow
    def test_the_discriminator_is_compiled_in_the_step_of_the_tokenizer_too(self, programs: list[str]) -> None:
        task, roots, strategy = placed(make_task(), compile=CompileSettings('counted', parts=('discriminator',)))
        parts = task.training_step(make_batch(12), roots, 1)
        next(parts)
        assert len(programs) == 1
        next(parts)
        assert len(programs) == 2, 'with a gradient for the picture, and without'
        one_step(task, roots, strategy, 2, make_batch(12))
        assert len(programs) == 2, 'later steps find what they need'

    @pytest.mark.slow
    def test_evaluation_runs_the_same_parts(self, programs: list[str]) -> None:
        task, _, _ = placed(make_task(), compile='counted')
        task.eval()
        expected = make_task().eval().validation_step(make_batch(12))
        for _ in range(2):
            found = task.validation_step(make_batch(12))
            assert len(programs) == 3, 'encoder, quantizer, decoder'
        torch.testing.assert_close(found.reconstruction, expected.reconstruction)

    def test_keys_stay_and_only_named_parts_change(self) -> None:
        task, _, _ = placed(make_task(), compile=CompileSettings('aot_eager', parts=('tokenizer.decoder',)))
        assert task.state_dict().keys() == make_task().state_dict().keys()
        assert 'features' in vars(task.tokenizer.decoder)
        assert task.tokenizer.encoder._compiled_call_impl is None

    @pytest.mark.slow
    def test_a_copy_of_a_decoder_uses_its_own_weights(self) -> None:
        task, _, _ = placed(make_task(), compile=CompileSettings('aot_eager', parts=('tokenizer.decoder',)))
        decoder = task.tokenizer.decoder
        z = torch.randn(1, 6, 6, 6)
        before = decoder(z)
        other = copy.deepcopy(decoder)
        torch.nn.init.zeros_(other.norm_out.weight)
        assert torch.equal(decoder(z), before)
        assert not torch.allclose(other(z), before)

    def test_an_unknown_part_is_said_when_training_starts(self) -> None:
        strategy = BaseStrategy(device='cpu', compile=CompileSettings('eager', parts=('tokenizer.encoder', 'discriminater')))
        strategy.start()
        task = make_task()
        strategy.place(task)  # what a validator does, whose model has no discriminator
        with pytest.raises(ConfigError, match=r"compile names 'discriminater'.*did you mean 'discriminator'"):
            strategy.wrap(task.roots())


class TestSettings:
    @pytest.mark.parametrize(
        ('given', 'expected'),
        [
            (False, None),
            (True, CompileSettings()),
            ('aot_eager', CompileSettings('aot_eager')),
            (dict(parts=['discriminator'], dynamic=True), CompileSettings(parts=('discriminator',), dynamic=True)),
        ],
    )
    def test_forms(self, given: Any, expected: CompileSettings | None) -> None:
        for kind in ('BaseStrategy', 'DDPStrategy'):
            config = PyConfig(trainer=dict(type=kind, compile=given)).trainer
            assert VQStrategyRegistry.build(config, 'strategy').compile == expected

    def test_an_unknown_back_end(self) -> None:
        with pytest.raises(ConfigError, match="no back end 'inducter'; did you mean 'inductor'"):
            BaseStrategy(device='cpu', compile='inducter').start()

    def test_modes_are_inductors(self) -> None:
        with pytest.raises(ConfigError, match='Modes are those of inductor'):
            CompileSettings('aot_eager', mode='max-autotune')

    @pytest.mark.parametrize('settings', [dict(mode='reduce-overhead'), dict(mode='max-autotune'), dict(backend='cudagraphs')])
    def test_cuda_graphs_are_refused_without_cuda_and_with_micro_batches(self, settings: dict[str, str]) -> None:
        with pytest.raises(ConfigError, match=r'CUDA graphs.*device is .cpu'):
            BaseStrategy(device='cpu', compile=CompileSettings(**settings)).start()
        with pytest.raises(ConfigError, match='accumulate is 2'):
            BaseStrategy(accumulate=2, compile=CompileSettings(**settings))


class TestSecondOrder:
    def gradients(self, **options: Any) -> Any:
        return one_step(*placed(make_task(penalties={'r1': R1Penalty(interval=1)}), **options), 1, make_batch(12))

    @pytest.mark.slow
    def test_r1_with_a_compiled_discriminator(self) -> None:
        ours = self.gradients(compile=CompileSettings('aot_eager', parts=('discriminator',)))
        assert_steps_agree(ours, self.gradients(), 1e-5)

    def test_compiled_programs_have_no_second_derivative(self) -> None:
        """What ``eager`` is there for; if this fails, it can go."""
        discriminator = make_task().discriminator
        compile_part(discriminator, CompileSettings('aot_eager'))

        def penalty() -> Tensor:
            image = torch.rand(2, 3, 12, 12, requires_grad=True)
            (gradient,) = torch.autograd.grad(discriminator(image).sum(), image, create_graph=True)
            return gradient.square().sum()

        with pytest.raises(RuntimeError, match='double backward'):
            penalty().backward()
        with eager():
            penalty().backward()


@pytest.mark.slow
def test_a_changing_temperature_is_no_new_program(programs: list[str]) -> None:
    quantizer = GumbelQuantizer(16, 4).train()
    twin = copy.deepcopy(quantizer)
    compile_part(quantizer, CompileSettings('counted', fullgraph=True))
    features = torch.randn(3, 5, 4)
    seen = []
    for temperature in (2.0, 1.0, 0.5, 0.25, 0.125):
        quantizer.temperature = twin.temperature = temperature
        results = []
        for part in (quantizer, twin):
            torch.manual_seed(0)
            x = features.clone().requires_grad_()
            results.append(torch.autograd.grad((part(x).z ** 2).sum(), x)[0])
        torch.testing.assert_close(*results)
        seen.append(results[0])
    assert len(programs) == 1
    assert all(not torch.allclose(one, other) for one, other in itertools.pairwise(seen)), 'it is really used'
    assert quantizer.temperature == 0.125
    assert 'temperature_tensor' not in quantizer.state_dict()


@pytest.mark.slow
def test_ranks_compiled_equal_ranks_eager(tmp_path: Path, gloo_pool: GlooPool) -> None:
    """Parts are compiled, DDP wraps them: 3 adversarial steps with an EMA codebook and R1."""
    options = dict(iters=3, start=0, strategy='ddp')
    plain = gloo_pool.run(train_gan_with, str(tmp_path), options, {})
    ours = gloo_pool.run(train_gan_with, str(tmp_path), options, dict(compile='aot_eager'))
    for key, value in plain[0].items():
        assert torch.equal(ours[0][key], ours[1][key]), f'{key} differs between ranks'
        torch.testing.assert_close(ours[0][key], value, rtol=1e-5, atol=1e-5, msg=lambda text, key=key: f'{key}: {text}')


@pytest.mark.slow
def test_a_run_with_everything_equals_a_plain_one(tmp_path: Path) -> None:
    """Compiled, recomputed and channels_last at once."""
    options = dict(iters=3, start=0)
    plain = train_gan(str(tmp_path), options)
    ours = train_gan(str(tmp_path), options, compile='aot_eager', checkpoint_activations=True, channels_last=True)
    for key, value in plain.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f'{key}: {text}')


def test_options_pass_the_check_of_configs(tmp_path: Path) -> None:
    path = tmp_path / 'config.py'
    path.write_text(
        "from vq.core import PyConfig\n_export_ = PyConfig.load('configs/digits/vq_ema.py')\n"
        "_export_.trainer.strategy.update(compile=dict(backend='aot_eager', parts=['tokenizer.encoder'], fullgraph=True),\n"
        "                                 checkpoint_activations=['tokenizer.decoder'])\n"
    )
    checked(PyConfig.load(path), 'trainer')
    path.write_text(path.read_text().replace('fullgraph', 'fulgraph'))
    with pytest.raises(ConfigError, match="did you mean 'fullgraph'"):
        checked(PyConfig.load(path), 'trainer')
