"""What the tests of the XLA strategy run in processes of their own: ``python -m tests.strategies.xla_runs WHAT ARGUMENTS``.

``PJRT_DEVICE`` and the number of devices are read once, when torch_xla is imported, and it must be imported before the
first backward of a process. The last line of output is JSON.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.runners.gan import STEP, write_gan_config
from tests.runners.support import build_trainer
from vq.strategies.base import BaseStrategy

SGD = dict(type='SGD', lr=0.1)
SMALL: dict[str, Any] = {
    '.trainer.optimizers': {name: SGD | step for name, step in STEP.items()},
    '.trainer.model.tokenizer.encoder.residual_blocks': 1,
    '.trainer.model.tokenizer.decoder.residual_blocks': 1,
    '.trainer.model.tokenizer.encoder.attention_levels': (),
    '.trainer.model.tokenizer.decoder.attention_levels': (),
}
# the features of a classifier nobody trained: what counts is that figures are those of the CPU
CLASSIFIER = dict(
    type='ImageClassification',
    classes=4,
    backbone=dict(
        type='ConvEncoder', width=8, multipliers=(1,), residual_blocks=1, attention_levels=(), norm_groups=4, out_channels=4
    ),
)
FEATURES: dict[str, Any] = dict(
    type='FeatureMetric',
    network=dict(type='ClassifierFeatures', classifier=CLASSIFIER),
    figures=('fid', 'kid', 'precision_recall'),
)


def build(folder: Path, runner: str, options: dict[str, Any], overrides: dict[str, Any]) -> Any:
    from vq.assembly.building import build_runner
    from vq.assembly.compose import compose
    from vq.runners.context import RunContext

    folder.mkdir(parents=True, exist_ok=True)
    config = compose(str(write_gan_config(folder)), options, overrides, tiny=False)
    built = build_runner(config, runner, 3407)
    built.bind(RunContext('test', folder / 'run', 3407, config.dumps()))
    return built


def compilations() -> int:
    import torch_xla.debug.metrics as metrics

    data = metrics.metric_data('CompileTime')
    return 0 if data is None else int(data[0])


def host_operations() -> dict[str, int]:
    """What torch_xla computed on the host for want of a lowering, and what was read there."""
    import torch_xla.debug.metrics as metrics

    return {name: metrics.counter_value(name) for name in metrics.counter_names() if name.startswith('aten::')}


@contextlib.contextmanager
def recorded(trainer: Any) -> Iterator[dict[str, list[Any]]]:
    """Losses of every backward; after each step, under XLA, how many programs were compiled so far."""
    found: dict[str, list[Any]] = {'losses': [], 'compiled': [], 'on_host': []}
    backward, train_step = trainer.strategy.backward, trainer.train_step

    def observed_backward(loss: Tensor) -> None:
        backward(loss)
        found['losses'].append(loss.detach().clone())

    def observed_step() -> None:
        train_step()
        if trainer.strategy.name == 'xla':
            from vq.strategies.xla import cut_graph

            cut_graph()
            found['compiled'].append(compilations())
            found['on_host'].append(host_operations())

    trainer.strategy.backward, trainer.train_step = observed_backward, observed_step
    yield found
    found['losses'] = [float(loss) for loss in found['losses']]


def train(folder: Path, strategy: str, iters: int = 5, start_from: str | None = None, **options: Any) -> dict[str, Any]:
    """Train, perhaps from a checkpoint; losses and compilations."""
    from vq.io import checkpoints
    from vq.runners.resuming import Resume

    overrides = {**SMALL, **options.pop('overrides', {})}
    trainer = build(folder, 'trainer', dict(start=0, iters=iters, save_every=3, strategy=strategy, **options), overrides)
    if start_from is not None:
        trainer.resumed = Resume(Path(start_from), checkpoints.load(Path(start_from)))
    with recorded(trainer) as found:
        trainer.run()
    return found


def evaluate(folder: Path, strategy: str, checkpoint: str) -> dict[str, Any]:
    """Two passes over 20 samples in batches of 8, features included, and what ``tokenize`` writes, with given weights."""
    overrides = SMALL | {'.validator.dataloader.batch_size': 8, '.validator.metrics.features': FEATURES}
    validator = build(folder / 'val', 'validator', dict(start=0, strategy=strategy), overrides)
    load_weights(validator.model, checkpoint)
    validator.limit = 20
    validator.setup()
    first = validator.evaluate()
    compiled = compilations() if strategy == 'xla' else 0
    again = validator.evaluate()
    compiled = (compilations() if strategy == 'xla' else 0) - compiled
    sharded = sharding_of(validator) if strategy == 'xla' else []
    validator.close()
    return {
        'results': first,
        'differ': [name for name in first if name != 'seconds' and first[name] != again[name]],
        'compiled_again': compiled,
        'tokens': write_tokens(folder / 'tokens', strategy, checkpoint),
        'sharding': sharded,
    }


def load_weights(model: Any, checkpoint: str) -> None:
    from vq.io import checkpoints

    own = model.state_dict()
    state = {key: value for key, value in checkpoints.load(Path(checkpoint)).model.items() if key in own}
    assert set(state) == set(own)
    model.load_state_dict(state)


def write_tokens(folder: Path, strategy: str, checkpoint: str) -> list[Any]:
    from vq.io.shards import ShardSet

    overrides = SMALL | {'.validator.dataloader.batch_size': 8, '.validator.type': 'VQITRunnerRegistry.Tokenizer'}
    writer = build(folder, 'validator', dict(start=0, strategy=strategy), overrides)
    load_weights(writer.model, checkpoint)
    writer.limit = 20
    writer.run()
    return [sample['tokens'].tolist() for sample in ShardSet(folder / 'run' / 'tokens')]


def sharding_of(validator: Any) -> list[str]:
    """How a batch, its keys and a parameter lie on the devices, in XLA's words; '' is the same everywhere."""
    import torch_xla

    with validator.open_loader() as loader:
        batch = validator.strategy.to_device(next(iter(loader)))
    parameter = next(validator.model.parameters())
    return [torch_xla._XLAC._get_xla_sharding_spec(tensor) for tensor in (batch.image, batch.key, parameter)]


def whole(folder: str, cpu_checkpoint: str) -> dict[str, Any]:
    """What one device does, in one process, so that programs are compiled once."""
    place = Path(folder)
    found: dict[str, Any] = {'straight': train(place / 'straight', 'xla')}
    run = place / 'straight' / 'run' / 'checkpoints'
    found['resumed'] = train(place / 'resumed', 'xla', start_from=str(run / 'iter_3'))
    found['from_cpu'] = train(place / 'from_cpu', 'xla', start_from=cpu_checkpoint)
    found['evaluation'] = evaluate(place / 'evaluation', 'xla', str(run / 'iter_5'))
    found['optimizers'] = optimizers()
    return found


def several(folder: str) -> dict[str, Any]:
    """The same on several devices, as far as it can differ."""
    found: dict[str, Any] = {'straight': train(Path(folder), 'xla')}
    found['evaluation'] = evaluate(Path(folder), 'xla', str(Path(folder) / 'run' / 'checkpoints' / 'iter_5'))
    return found


def options(folder: str) -> dict[str, Any]:
    """bf16, micro-batches, the older treatment of views, noise of the device, a temperature on the way down; and resumed."""
    place, dtypes = Path(folder), set()
    cooling = dict(type='LinearSchedule', final=0.5)
    callbacks = [
        dict(type='AnnealCallback', setting='tokenizer.quantizer.temperature', value=1.0, schedule=cooling),
        dict(type='EMACallback', decay=0.9),
        dict(type='LogCallback', interval=2),
        dict(type='CodebookAlarmCallback', interval=2),
        dict(type='CheckpointCallback', interval=3),
    ]
    overrides = {
        '.trainer.model.tokenizer.quantizer': dict(type='GumbelQuantizer', codebook_size=32, embedding_dim=8),
        '.trainer.model.tokenizer.encoder.multipliers': (1,),
        '.trainer.model.tokenizer.decoder.multipliers': (1,),
        '.trainer.model.tokenizer.decoder.residual_blocks': 1,
        '.trainer.strategy': dict(type='XLAStrategy', precision='bf16', accumulate=2, functionalization=False),
        '.trainer.callbacks': callbacks,
        '.trainer.optimizers.tokenizer.schedule': dict(type='CosineSchedule', warmup=2),
    }

    def run(name: str, start_from: Path | None) -> dict[str, Any]:
        from vq.io import checkpoints
        from vq.runners.resuming import Resume

        trainer = build_trainer(place / name, dict(iters=5), overrides)
        if start_from is not None:
            trainer.resumed = Resume(start_from, checkpoints.load(start_from))
        stem = trainer.model.tokenizer.encoder.stem
        stem.register_forward_hook(lambda module, given, made: dtypes.add(str(made.dtype)))
        with recorded(trainer) as found:
            trainer.run()
        return found

    found = {'straight': run('straight', None)}
    found['resumed'] = run('resumed', place / 'straight' / 'run' / 'checkpoints' / 'iter_3')
    return {**found, 'dtypes': sorted(dtypes)}


RATES = (0.1, 0.2, 0.3, 0.1, 0.0, 1.0, 0.05)


def steps_of(name: str, strategy: BaseStrategy, **settings: Any) -> tuple[Any, nn.Parameter, list[int]]:
    """An optimizer after one step of each rate, the fourth of them refused; compilations after each."""
    from vq.registries import VQOptimizerRegistry
    from vq.runners.optimizers import learning_rate
    from vq.strategies.stepping import guarded_step

    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.randn(3, 5, generator=generator).to(strategy.device))
    factory = VQOptimizerRegistry.build(dict(type=name, **settings))
    optimizer = factory([{'params': [parameter]}], strategy.fused)
    strategy.adapt(optimizer)
    counts = []
    for step, rate in enumerate(RATES):
        gradient = torch.randn(3, 5, generator=generator)
        gradient[0] = 0  # second moments that stay 0 must not be divided by a rate of 0
        parameter.grad = gradient.to(strategy.device)
        optimizer.param_groups[0]['lr'] = learning_rate(rate, strategy)
        guarded_step(optimizer, torch.tensor([step != 3]).to(strategy.device)[0])
        strategy.finish_step()
        if strategy.name == 'xla':
            counts.append(compilations())
    return optimizer, parameter, counts


def optimizers() -> dict[str, Any]:
    """Every optimizer on XLA, its state carried to the CPU and back."""
    from vq.strategies.xla import XLAStrategy

    device, host = XLAStrategy(), BaseStrategy('cpu')
    device.start()
    host.start()
    found = {}
    for name, settings in (
        ('SGD', dict(momentum=0.9, weight_decay=0.1, nesterov=True)),
        ('Adam', dict(weight_decay=0.1)),
        ('AdamW', dict(weight_decay=0.1)),
    ):
        ours, parameter, counts = steps_of(name, device, **settings)
        theirs, expected, _ = steps_of(name, host, **settings)
        there = steps_of(name, host, **settings)[0]
        there.load_state_dict(ours.state_dict())
        back = steps_of(name, device, **settings)[0]
        back.load_state_dict(theirs.state_dict())
        found[name] = {
            'compiled': counts,
            'error': (parameter.detach().cpu() - expected.detach()).abs().max().item(),
            'state_error': max(
                (first[key].cpu() - second[key].cpu()).abs().max().item()
                for one, other in ((ours, theirs), (there, theirs), (back, ours))
                for first, second in zip(one.state.values(), other.state.values(), strict=True)
                for key in first
            ),
            'fused_here_and_there': [there.param_groups[0]['fused'], bool(back.param_groups[0]['fused'])],
            'devices': [
                value.device.type for one in (there, back) for state in one.state.values() for value in state.values()
            ],
            'rate': ours.state_dict()['param_groups'][0]['lr'],
        }
    return found


if __name__ == '__main__':
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
