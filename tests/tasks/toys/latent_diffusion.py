"""Flow matching on the latents of any tokenizer, as a user would add it: one file, no edit in runners or commands.

z_t = (1 - t) x0 + t eps,  loss = E |f(z_t, t, class) - (eps - x0)|^2;  drawn by Euler steps from t = 1 to 0
"""

import copy

import torch
from torch import nn

from vq.core.conditions import Condition
from vq.core.drawing import Drawn
from vq.core.records import Losses, Outputs, Prediction, to_float
from vq.interfaces import Denoiser, Encoder, Task
from vq.registries import VQTaskRegistry
from vq.sampling.paths.flow import FlowPath
from vq.sampling.predictions import noised, target_of
from vq.sampling.streams import uniforms
from vq.tasks.asked import condition_of_classes


class Mixer(Denoiser):
    kind = 'velocity'

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.label, self.time = nn.Embedding(classes + 1, width), nn.Linear(1, width)
        self.into, self.out = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z, t, condition=None):
        label = torch.where(condition.null, self.label.num_embeddings - 1, condition.category)
        known = (self.label(label) + self.time(t[:, None]))[..., None, None]
        return Prediction(self.out(torch.relu(self.into(z) + known)), self.kind)


@VQTaskRegistry.register_()
class LatentDiffusion(Task):
    kind, asks, draws, codebooks = 'generator', 'classes', (), ()

    def __init__(self, tokenizer: Encoder, classes: int, width: int = 16, steps: int = 4, guidance: float = 1.0) -> None:
        super().__init__()
        self.tokenizer, self.classes, self.steps, self.guidance = tokenizer, classes, steps, guidance
        self.denoiser, self.codes = Mixer(tokenizer.latent.channels, classes, width), tokenizer.tokenizer

    def roots(self):
        return {'denoiser': self.denoiser}

    def latents(self, batch):
        return self.tokenizer(to_float(batch.image)) if batch.latent is None else batch.latent

    def loss(self, denoiser, batch, t, eps, null):
        x0, level = self.latents(batch), FlowPath().level(t)
        found = denoiser(noised(x0, eps, level), t, Condition(batch.category, null=null))
        return (found.value - target_of(found.kind, x0, eps, level)).square().mean()

    def training_step(self, batch, roots, step):
        t, null = torch.rand(2, len(batch), device=batch.key.device)
        eps = torch.randn(len(batch), *self.tokenizer.latent.shape, device=t.device)
        losses = Losses()
        losses.add('flow', self.loss(roots['denoiser'], batch, t, eps, null < 0.1))
        yield 'denoiser', losses

    def validation_step(self, batch):
        t = torch.linspace(0.05, 0.95, len(batch), device=batch.key.device)
        eps = torch.ones(len(batch), *self.tokenizer.latent.shape, device=t.device)
        return Outputs(losses={'flow': self.loss(self.denoiser, batch, t, eps, t < 0)})

    def forward_once(self, batch):
        z, t = self.latents(batch), torch.zeros(len(batch), device=batch.key.device)
        self.denoiser(z, t, Condition(t.long(), null=t < 0))

    def condition(self, asked, places, device):
        return condition_of_classes(asked, self.classes, places, device)

    @classmethod
    def set_drawing(cls, config, settings):
        config.update(settings)
        return {name: config.get(name) for name in ('steps', 'guidance')}

    def drawing(self, settings, described=None):
        changed = copy.copy(self)
        vars(changed).update(settings)
        return changed

    def draw(self, wanted):
        device = self.tokenizer.digest.device
        numbers = uniforms(wanted.seed, wanted.ids, *self.tokenizer.latent.shape, purpose='latent').to(device)
        z = torch.erfinv((2 * numbers - 1).clamp(-0.9999, 0.9999)) * 2**0.5
        both = wanted.condition.doubled()
        for step in range(self.steps, 0, -1):
            t = torch.full((2 * len(z),), step / self.steps, device=device)
            known, unknown = self.denoiser(torch.cat([z, z]), t, both).value.chunk(2)
            z = z - (unknown + self.guidance * (known - unknown)) / self.steps
        z = self.codes.denormalize(z)
        return Drawn(latents=z, decode=lambda: self.codes.decode(z))
