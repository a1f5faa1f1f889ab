"""What the optimizer of a diffusion task trains."""

from __future__ import annotations

from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.core.records import Prediction
from vq.interfaces import Denoiser
from vq.interfaces.conditions import Conditioned, Conditioner
from vq.interfaces.denoisers import conditioned
from vq.nn.packed import packed_copy
from vq.tasks.hidden import Hidden

ROWS = 256  # of the products in a step of sampling, the same for all batches


class Conditional(nn.Module):
    """A denoiser with its conditioner, and the heads of losses on its hidden features: one root, wrapped as a whole.

    (z_t (B, C, *cells), t (B,), condition) -> (Prediction, name of the loss -> projected features)
    """

    def __init__(
        self, denoiser: Denoiser, conditioner: Conditioner | None, hidden: Hidden | None = None, cells: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.denoiser, self.conditioner, self.hidden, self.cells = denoiser, conditioner, hidden, cells
        self._kept: list[tuple[Condition | None, int, Conditioned | None]] | None = None  # in a drawing

    def forward(
        self, z: Tensor, t: Tensor, condition: Condition | None, listens: bool = False
    ) -> tuple[Prediction, dict[str, Tensor]]:
        """``listens``: the heads run. Drawing does without them."""
        given = self._conditioned(condition, len(z))
        if self.hidden is None or not listens:
            return self.denoiser(z, t, given), {}
        with self.hidden.listening():
            prediction: Prediction = self.denoiser(z, t, given)
        return prediction, self.hidden(self.cells)

    def for_drawing(self) -> Conditional:
        """The same for the many passes of a drawing: weights are packed, and each condition is conditioned once.

        A network whose parameters are sharded works as a whole only, and is returned as it is.
        """
        if any(type(parameter.detach()) is not Tensor for parameter in self.parameters()):
            return self
        denoiser = packed_copy(self.denoiser, ROWS) if self.denoiser.packs else self.denoiser
        found = Conditional(denoiser, self.conditioner)
        found._kept = []
        return found

    def _conditioned(self, condition: Condition | None, rows: int) -> Conditioned | None:
        """Samplers ask with the same objects in every step."""
        for known, count, given in self._kept or ():
            if known is condition and count == rows:
                return given
        found = conditioned(self.denoiser, self.conditioner, condition, rows)
        if self._kept is not None:
            self._kept.append((condition, rows, found))
        return found
