"""Parts that a user adds to diffusion: digits with words and boxes, conditioners of both, a denoiser that reads them."""

import torch
from torch import nn

from vq.core.records import Prediction
from vq.data.datasets.digits import DigitsDataset
from vq.interfaces import Conditioned, Conditioner, Denoiser
from vq.registries import VQConditionerRegistry, VQDatasetRegistry, VQDenoiserRegistry

WORDS = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']


@VQDatasetRegistry.register_()
class WordedDigits(DigitsDataset):
    """A digit has its word as a text, and its whole picture as a box; some texts are longer than others."""

    def annotations_of(self, index):
        digit, side = self.category_of(index), self.image_size
        text = ' '.join(WORDS[: digit + 1][-2:]) if digit % 2 else WORDS[digit]
        return {'text': text, 'boxes': [[0, 0, side, side]], 'box_categories': [digit]}


@VQConditionerRegistry.register_()
class WordConditioner(Conditioner):
    """A text -> a vector for each word (B, L, dim); rows without a text have one entry, the null."""

    kind = 'text'

    def __init__(self, dim: int, drop: float = 0.5) -> None:
        super().__init__()
        self.drop, self.table = drop, nn.Embedding(len(WORDS) + 1, dim)

    def forward(self, condition, rows):
        texts = [''] * rows if condition is None else condition.text
        empty = [False] * rows if condition is None or condition.null is None else condition.null.tolist()
        null = [len(WORDS)]
        read = [
            null if gone or not text else [*map(WORDS.index, text.split())] for text, gone in zip(texts, empty, strict=True)
        ]
        length = max(map(len, read))
        numbers = torch.tensor([row + null * (length - len(row)) for row in read], device=self.table.weight.device)
        there = torch.arange(length) < torch.tensor([*map(len, read)])[:, None]
        return Conditioned(sequence=self.table(numbers), sequence_mask=there.to(numbers.device))


@VQConditionerRegistry.register_()
class ToyBoxConditioner(Conditioner):
    """Boxes with their categories -> maps (B, dim, side, side): the sum of the vectors of the boxes that cover a cell."""

    kind = 'layout'

    def __init__(self, dim: int, side: int, drop: float = 0.5) -> None:
        super().__init__()
        self.side, self.drop, self.table = side, drop, nn.Embedding(10, dim)

    def forward(self, condition, rows):
        if condition is None:
            return Conditioned(maps=self.table.weight.new_zeros(rows, self.table.embedding_dim, self.side, self.side))
        middle = torch.arange(self.side, device=self.table.weight.device) + 0.5
        left, top, right, bottom = condition.boxes[..., None].unbind(2)  # (B, M, 1) each
        columns, rows_of = (left <= middle) & (middle < right), (top <= middle) & (middle < bottom)
        there = condition.boxes_mask if condition.null is None else condition.boxes_mask & ~condition.null[:, None]
        cover = columns[:, :, None] & rows_of[..., None] & there[..., None, None]  # (B, M, side, side)
        return Conditioned(maps=torch.einsum('bmyx,bmd->bdyx', cover.float(), self.table(condition.box_categories)))


@VQDenoiserRegistry.register_()
class Reader(Denoiser):
    """A convolution that adds the mean of a sequence, and maps, to its hidden features."""

    kind, takes = 'velocity', ('sequence', 'maps')

    def __init__(self, channels: int, cells: tuple[int, ...], dim: int = 8) -> None:
        super().__init__()
        self.dim, self.time = dim, nn.Linear(1, dim)
        self.into, self.out = nn.Conv2d(channels, dim, 3, padding=1), nn.Conv2d(dim, channels, 3, padding=1)

    def forward(self, z, t, condition=None):
        known = self.into(z) + self.time(t[:, None])[..., None, None]
        if condition.sequence is not None:
            there = condition.sequence_mask[..., None]
            known = known + ((condition.sequence * there).sum(1) / there.sum(1))[..., None, None]
        return Prediction(self.out(torch.relu(known if condition.maps is None else known + condition.maps)), self.kind)
