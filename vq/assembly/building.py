"""Building a runner for a command: seeded parameters, pretrained parts, weights, the folder of the run."""

from __future__ import annotations

import functools
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from vq.assembly import logs
from vq.assembly.compose import checked, compose, digest, runner_config
from vq.assembly.image_sizes import check_sizes
from vq.core import config_json
from vq.core.bindings import check_bound
from vq.core.config import PyConfig
from vq.core.environment import dry_run
from vq.core.errors import UserError, listing
from vq.core.meta import on_meta
from vq.core.random import derive_seed
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import HiddenLoss, Pretrained, Strategy, Task, Tokenizer
from vq.interfaces.pretrained import added_to, frozen_parts
from vq.io.run_folder import make_folder
from vq.io.spec import preprocessing_of
from vq.io.weights import Misfit, compare, load_model_from, state_hash
from vq.registries import VQRunnerRegistry, VQTaskRegistry
from vq.runners.context import RunContext
from vq.tokenizers.hashing import tokens_hash

logger = logging.getLogger('vq')

R = TypeVar('R')


def runs_folder(work_dir: str | None) -> Path:
    """The folder of runs: that of ``--work-dir``, or ``work_dirs``, with a subfolder for dry runs."""
    base = Path(work_dir) if work_dir else Path('work_dirs')
    return base / 'dry_run' if dry_run() and not work_dir else base


def is_first_process() -> bool:
    return int(os.environ.get('RANK', '0') or 0) == 0


def config_name(config: str) -> str:
    """The name of the composed config in a run folder: that of the config file; ``config.json`` for a checkpoint or run."""
    path = Path(config)
    return path.with_suffix('.json').name if path.suffix in ('.py', '.json') else 'config.json'


def context_of(
    prog: str, argv: Sequence[str] | None, arguments: Any, config: PyConfig, folder: Path, which: str
) -> RunContext:
    """The context of a runner: the run's name, folder and seed, the composed config, the command as typed."""
    command = shlex.join(['python', '-m', prog, *(sys.argv[1:] if argv is None else argv)])
    return RunContext(
        name=arguments.name,
        work_dir=folder,
        seed=arguments.seed,
        config_text=config_json.dumps(config),
        config_name=config_name(arguments.config),
        preprocessing=preprocessing_of(config),
        command=command,
        full=full_form(arguments, which),
    )


def build_runner(config: PyConfig, which: str, seed: int) -> Any:
    """Check, then build with parameters drawn from ``seed``: the same on every rank."""
    found = checked(config, which)
    torch.manual_seed(derive_seed('parameters', seed))
    return VQRunnerRegistry.build(found, which)


def open_runner(
    prog: str, argv: Sequence[str] | None, options: Any, config: PyConfig, folder: Path, which: str, kind: type[R], name: str
) -> tuple[R, RunContext]:
    """The start of every command: folder, log, context, the runner of its kind, frozen parts."""
    if is_first_process():
        make_folder(folder)
    logs.start(folder)
    context = context_of(prog, argv, options, config, folder, which)
    runner = build_runner(config, which, options.seed)
    if not isinstance(runner, kind):
        raise UserError(f'{which} is a {type(runner).__name__}, which {prog} cannot run', f"Set {which}.type to '{name}'.")
    check_sizes(config, which, runner.model)  # type: ignore[attr-defined]
    for part in runner.needs_loaded():  # type: ignore[attr-defined]
        load_frozen(part, context)
    if which == 'trainer' and 'validator' in config:
        context.validation = functools.partial(build_validation, config, context)
        # also of a run without evaluation: what does not fit would be found by vq.val, after the training
        if 'model' not in config['validator']:
            check_bound(VQRunnerRegistry, {**checked(config, 'validator'), 'model': runner.model}, 'validator')  # type: ignore[attr-defined]
    runner.bind(context)  # type: ignore[attr-defined]
    return runner, context


def full_form(options: Any, which: str) -> Callable[[], Task] | None:
    """In a dry run, what builds the model of the config's full form on the meta device, from the options of the command."""
    if not dry_run() or not hasattr(options, 'load_model_from'):
        return None

    @functools.cache
    def build() -> Task:
        config = compose(options.config, options.config_options, options.override, tiny=False, trusted=options.trust)
        with on_meta():
            model: Task = VQTaskRegistry.build(runner_config(config, which)['model'], f'{which}.model')
        return model

    return build


def build_validation(config: PyConfig, context: RunContext, model: Task, strategy: Strategy) -> Any:
    """The config's validator around a model in training: only its dataset and metrics are built."""
    found = {**checked(config, 'validator'), 'model': model, 'strategy': strategy}
    validator = VQRunnerRegistry.build(found, 'validator')
    load_frozen(validator.networks, context)
    return validator


def load_frozen(model: nn.Module, context: RunContext) -> None:
    """The second phase of building: parts read their pretrained files. In a dry run they keep seeded noise, with a warning,
    except tokenizers that the command names."""
    frozen = [part for part in model.modules() if isinstance(part, FrozenTokenizer)]
    for name, module in model.named_modules():
        if not isinstance(module, Pretrained):
            continue
        if not dry_run():
            module.load_pretrained()
        elif isinstance(module, FrozenTokenizer) and module.weights is not None:
            check = functools.partial(_check_frozen, frozen.index(module), module.weights)
            load_small(module.load_pretrained, check, module.weights, context)
        else:
            logger.warning('dry run: %s keeps random weights in place of its pretrained file', name)
            context.random_weights = True


def _check_frozen(index: int, weights: str, full: Task) -> None:
    [part for part in full.modules() if isinstance(part, FrozenTokenizer)][index].check_pretrained(weights)


def load_small(load: Callable[[], None], check: Callable[[Task], None], what: str, context: RunContext) -> None:
    """``load`` weights into the model. In a dry run weights of the full form do not fit the tiny one: ``check`` compares them
    with the full form, and the tiny one keeps random weights."""
    try:
        load()
    except Misfit:
        if context.full is None:
            raise
        check(context.full())
        logger.warning('dry run: the weights of %s fit the full form; the tiny form keeps random weights', what)
        context.random_weights = True


def load_weights(
    model: nn.Module, files: Sequence[str], weights: str, context: RunContext, strict: bool = True, statistics: bool = True
) -> None:
    """Load the files of ``--load-model-from``. Without ``strict``, keys that no file has keep their values. Training leaves
    out ``statistics`` of latents: they do not hold for the weights that it makes."""

    def settings(module: nn.Module) -> dict[str, Any]:
        # published files have no digest of the tokenizer that they were trained on, so digests may be missing
        kept = [f'{name}.{tensor}' for name, part in frozen_parts(module).items() for tensor in part.kept]
        # and weights from before an alignment have no projection for it
        heads = [f'{name}.head' for name, part in module.named_modules() if isinstance(part, HiddenLoss)]
        # a training begins with new adapters where the file of a published network has none
        added = [] if statistics else [prefix for name, part in module.named_modules() for prefix in added_to(name, part)]
        new = (*module.training_only_prefixes(), *kept, *heads, *added)  # type: ignore[operator]
        return {'strict': strict, 'weights': weights, 'new_prefixes': new}

    def load() -> None:
        report = load_model_from(model, files, **settings(model), statistics=statistics)
        logger.info('%s', report.summary())
        context.meta['loaded'] = report.summary()

    def check(full: Task) -> None:
        compare(full, files, **settings(full))

    if files:
        load_small(load, check, listing(files), context)


def note_hashes(config: PyConfig, model: nn.Module, context: RunContext) -> None:
    """Store the hashes that results and token files record of their tokenizer in the context."""
    model_config = runner_config(config, 'validator' if 'validator' in config else 'trainer')['model']
    context.meta['tokenizer_config_hash'] = digest(model_config.get('tokenizer') or model_config)
    tokenizer = getattr(model, 'tokenizer', None) or model
    context.meta['weights_hash'] = state_hash(tokenizer)
    if isinstance(tokenizer, Tokenizer):
        context.meta['tokens_hash'] = tokens_hash(tokenizer)
