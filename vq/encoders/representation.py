"""A teacher as the encoder of an autoencoder, frozen or trained further."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.interfaces import Encoder, Layers, Teacher
from vq.interfaces.pretrained import frozen_parts
from vq.nn.precision import no_autocast
from vq.registries import VQEncoderRegistry


@VQEncoderRegistry.register_()
class RepresentationEncoder(Encoder):
    """image (B, 3, H, W) -> f (B, out_channels, h, w), the teacher's patch map of ``layers`` (RAE, 2025).

        f = (g - mean_c(g)) / sqrt(var_c(g) + eps)  for the map g, over the channels of each cell

    The published encoders are the last block with this norm, which is the network's last norm without its scale and shift.

    - ``layers``: see ``vq/interfaces/teachers.py``; 'sum_of_last_K' adds the last K blocks.
    - ``norm``, ``eps``: whether and how each cell is normalized.
    - ``downsampling``: pixels a side of a cell. The image is resized to give that many cells; None: a cell is a patch.
      ``antialias`` is how: the published encoders resize without it.
    - ``train_teacher``: what ``layers`` depends on is trained, and checkpoints contain the teacher. It stays in eval mode:
      these networks have no dropout.
    """

    def __init__(
        self,
        teacher: Teacher,
        layers: Layers = -1,
        norm: bool = True,
        eps: float = 1e-6,
        downsampling: int | None = None,
        antialias: bool = False,
        train_teacher: bool = False,
    ) -> None:
        super().__init__()
        self.teacher, self.layers, self.norm, self.eps, self.antialias = teacher, layers, norm, eps, antialias
        self.out_channels = teacher.channels(layers)
        self.downsampling = downsampling or teacher.patch_size
        self.pixel_mean, self.pixel_deviation = teacher.normalisation
        if train_teacher:
            train_what_reaches(self, teacher)

    def forward(self, image: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.teacher.frozen):
            patches = self.teacher.features(self._resized(image), self.layers).patches
        if not self.norm:
            return patches
        with no_autocast(patches.device):
            rows = patches.float().permute(0, 2, 3, 1)
            return F.layer_norm(rows, rows.shape[-1:], eps=self.eps).permute(0, 3, 1, 2)

    def _resized(self, image: Tensor) -> Tensor:
        cell, patch = self.downsampling, self.teacher.patch_size
        height, width = image.shape[-2:]
        if height % cell or width % cell:
            raise ConfigError(
                f'images of {height} x {width} are no whole number of cells of {cell} pixels',
                'Give another image size, or another downsampling.',
            )
        if cell == patch:
            return image
        size = (height // cell * patch, width // cell * patch)
        return F.interpolate(image.float(), size, mode='bicubic', antialias=self.antialias)


def train_what_reaches(encoder: Encoder, teacher: Teacher) -> None:
    """Unfreeze what the output of ``encoder`` depends on in ``teacher``, as found by a backward on the meta device.

    Others, such as a final norm of which the output is not used, would get no gradients, and DDP would wait for these.
    """
    teacher.frozen = False
    inside = [part for part in frozen_parts(teacher).values() if isinstance(part, nn.Module)]
    kept = {id(parameter) for part in inside for parameter in part.parameters()}
    state: dict[str, Tensor] = {
        name: torch.empty_like(value, device='meta') for name, value in [*encoder.named_parameters(), *encoder.named_buffers()]
    }
    own = {name: parameter for name, parameter in encoder.named_parameters() if id(parameter) not in kept}
    for name in own:
        state[name].requires_grad_()
    size = 4 * encoder.downsampling
    with torch.enable_grad():
        image = torch.empty(1, 3, size, size, device='meta')
        features = torch.func.functional_call(encoder, state, (image,))
        found = torch.autograd.grad(features.sum(), [state[name] for name in own], allow_unused=True)
    for parameter, gradient in zip(own.values(), found, strict=True):
        parameter.requires_grad_(gradient is not None)
