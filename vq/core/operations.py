"""Counting floating-point operations, in any code and on any device, the meta device included."""

from __future__ import annotations

from typing import Any

from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vq.core import shapes


class Operations(TorchDispatchMode):
    """The operations made while this mode is active, a multiply-add counted as two: the total of torch's FlopCounterMode.

    That class runs outside of the compiler, and imports it for that, which takes as long as importing torch. Nothing that is
    counted here is compiled.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if isinstance(func, OpOverload):  # in inference mode operations arrive whole, and the registry knows their parts
            with self:
                found = func.decompose(*args, **named)
            if found is not NotImplemented:
                return found
        found = shapes.run(func, args, named)
        formula = flop_registry.get(getattr(func, 'overloadpacket', None))
        if formula is not None:
            self.total += formula(*args, **named, out_val=found)
        return found
