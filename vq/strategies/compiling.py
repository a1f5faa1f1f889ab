"""torch.compile of parts, in place: a part keeps its class and its state-dict keys, and every call runs compiled code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from vq.core.errors import ConfigError, listing, nearest
from vq.interfaces import Task, Tokenizer

Mode = Literal['default', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs']


@dataclasses.dataclass
class CompileSettings:
    """How parts are compiled.

    backend    back end of torch.compile; 'inductor' generates kernels, 'aot_eager' only traces (for debugging)
    mode       mode of inductor; 'reduce-overhead' and 'max-autotune' record CUDA graphs, see docs/running.md
    parts      paths of modules from the task on; None: encoders, quantizers, decoders, discriminators, perceptual networks
               and the networks of generators
    dynamic    one graph for all sizes of images and batches, instead of one per size
    fullgraph  a graph break is an error
    """

    backend: str = 'inductor'
    mode: Mode = 'default'
    parts: tuple[str, ...] | None = None
    dynamic: bool = False
    fullgraph: bool = False

    def __post_init__(self) -> None:
        if self.parts is not None:
            self.parts = tuple(self.parts)
        if self.mode != 'default' and self.backend != 'inductor':
            raise ConfigError(
                f"compile has mode '{self.mode}' with the back end '{self.backend}'", 'Modes are those of inductor: drop one.'
            )

    @property
    def cuda_graphs(self) -> bool:
        """Whether kernels are recorded and replayed."""
        return self.backend == 'cudagraphs' or self.mode in ('reduce-overhead', 'max-autotune')

    def check(self, device: torch.device) -> None:
        """Raise on a back end that is not installed, and on CUDA graphs where inductor would leave them out silently."""
        known = torch.compiler.list_backends(exclude_tags=())
        if self.backend not in known:
            raise ConfigError(
                f"torch.compile has no back end '{self.backend}'{nearest(self.backend, known)}",
                f'It has: {listing(known, 20)}.',
            )
        if self.cuda_graphs and device.type != 'cuda':
            raise ConfigError(
                f"compile asks for CUDA graphs (mode '{self.mode}'), and the device is '{device}': inductor would leave them "
                'out without a word',
                "Use mode='default' there.",
            )


def compile_settings(option: bool | str | CompileSettings) -> CompileSettings | None:
    """The settings of a strategy's ``compile``: False, True, the name of a back end, or all settings."""
    if isinstance(option, bool):
        return CompileSettings() if option else None
    return CompileSettings(option) if isinstance(option, str) else option


def find_parts(task: Task, names: tuple[str, ...], option: str) -> tuple[dict[str, nn.Module], ConfigError | None]:
    """The modules of a task at these paths, and the error to raise if a path leads nowhere."""
    modules = dict(task.named_modules())
    found = {name: modules[name] for name in names if modules.get(name) is not None}
    missing = [name for name in names if name not in found]
    if not missing:
        return found, None
    near = nearest(missing[0], [name for name in modules if name.count('.') < 2])
    return found, ConfigError(
        f"{option} names '{missing[0]}', which the model does not have{near}",
        'Give paths from the task on, e.g. tokenizer.encoder, discriminator, losses.lpips.',
    )


def usual_parts(task: Task) -> dict[str, nn.Module]:
    """The outermost networks of a task, by path: modules whose class names a method in ``compiles``."""
    found: dict[str, nn.Module] = {}
    for name, module in task.named_modules():
        network = bool(getattr(module, 'compiles', ''))
        # of a frozen tokenizer used as an encoder, the networks inside are compiled
        holder = any(isinstance(child, Tokenizer) for child in module.children())
        if network and not holder and not any(name.startswith(f'{outer}.') for outer in found):
            found[name] = module
    return found


def compile_part(module: Any, settings: CompileSettings) -> None:
    """Compile in place the method that the class names in ``compiles``; ``forward`` of a class that names none."""
    how: dict[str, Any] = {'backend': settings.backend, 'fullgraph': settings.fullgraph, 'dynamic': settings.dynamic}
    if settings.backend == 'inductor':
        how['mode'] = settings.mode
    method = getattr(module, 'compiles', '') or 'forward'
    if method == 'forward':
        module.compile(**how)
    else:
        setattr(module, method, CompiledMethod(module, method, how))


class CompiledMethod:
    """A method of one module, compiled at its first call. A copy of the module compiles again."""

    def __init__(self, owner: nn.Module, name: str, how: dict[str, Any]) -> None:
        self.owner, self.name, self.how = owner, name, how
        self.compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self.compiled is None:
            method = getattr(type(self.owner), self.name).__get__(self.owner)
            self.compiled = torch.compile(method, **self.how)
        return self.compiled(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), 'compiled': None}


def begin_graphs() -> None:
    """Allow CUDA graphs to overwrite their outputs for the previous batch."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
