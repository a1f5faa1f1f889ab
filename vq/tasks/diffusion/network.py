"""What the optimizer of a diffusion task trains."""

from __future__ import annotations

from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.core.records import Prediction
from vq.interfaces import Denoiser
from vq.interfaces.conditions import Conditioner
from vq.interfaces.denoisers import conditioned
from vq.tasks.hidden import Hidden


class Conditional(nn.Module):
    """A denoiser with its conditioner, and the heads of losses on its hidden features: one root, wrapped as a whole.

    (z_t (B, C, *cells), t (B,), condition) -> (Prediction, name of the loss -> projected features)
    """

    def __init__(
        self, denoiser: Denoiser, conditioner: Conditioner | None, hidden: Hidden | None = None, cells: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.denoiser, self.conditioner, self.hidden, self.cells = denoiser, conditioner, hidden, cells

    def forward(
        self, z: Tensor, t: Tensor, condition: Condition | None, listens: bool = False
    ) -> tuple[Prediction, dict[str, Tensor]]:
        """``listens``: the heads run. Drawing does without them."""
        given = conditioned(self.denoiser, self.conditioner, condition, len(z))
        if self.hidden is None or not listens:
            return self.denoiser(z, t, given), {}
        with self.hidden.listening():
            prediction: Prediction = self.denoiser(z, t, given)
        return prediction, self.hidden(self.cells)
