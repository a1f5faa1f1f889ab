"""OpenAI's CLIP: files under its own names, against open_clip's network, which has these names too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.teachers.test_teachers import as_map, assert_close, build, images, normalised
from tests.teachers.test_vision_transformers import random_like
from vq.core.errors import UserError
from vq.teachers.keys.clip import clip_keys

SMALL = {'type': 'CLIPTeacher', 'dimension': 12, 'width': 32, 'depth': 3, 'heads': 4, 'image_size': 28}


def openai() -> Any:
    """A tiny network under OpenAI's names, with its text half."""
    model = pytest.importorskip('open_clip.model', reason="needs open_clip_torch: pip install 'vq[openclip]'")
    torch.manual_seed(0)
    vision = model.CLIPVisionCfg(layers=3, width=32, head_width=8, patch_size=14, image_size=28)
    text = model.CLIPTextCfg(context_length=6, vocab_size=20, width=8, heads=2, layers=1)
    peer = model.CLIP(12, vision, text, quick_gelu=True).eval()
    peer.load_state_dict(random_like(peer.state_dict()))
    return peer


class Holder(nn.Module):
    """A module whose only purpose is its tensors."""

    def forward(self) -> None:
        """TorchScript wants one."""


def holder(state: dict[str, Tensor]) -> nn.Module:
    top = Holder()
    for key, value in state.items():
        *path, name = key.split('.')
        module: nn.Module = top
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, Holder())
            module = module.get_submodule(part)
        module.register_buffer(name, value)
    return top


def test_a_file_of_openai_gives_its_features(tmp_path: Path) -> None:
    """As published: a TorchScript archive of half-precision weights, with three numbers that are buffers."""
    peer, file = openai(), tmp_path / 'ViT-B-16.pt'
    numbers = dict.fromkeys(('input_resolution', 'context_length', 'vocab_size'), torch.tensor(5))
    torch.jit.script(holder({**peer.half().state_dict(), **numbers})).save(str(file))
    teacher, image = build({**SMALL, 'file': str(file)}), images(28, 28)
    teacher.load_pretrained()
    peer.float()  # rounded as in the file
    with torch.no_grad():
        found, given = teacher.features(image, 'projected'), normalised(image, teacher)
        assert_close(found.pooled, peer.encode_image(given), False)
        peer.visual.output_tokens = True
        projected = peer.visual(given)[1] @ peer.visual.proj  # (B, h * w, D)
    assert_close(found.patches, as_map(torch.cat([projected[:, :1], projected], 1), 28, 28), False)


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


def test_nothing_may_be_left_over_on_either_side() -> None:
    state, teacher = openai().state_dict(), build(SMALL)
    teacher.fill(state, 'a file')
    assert sorted(clip_keys(state)) == sorted(teacher.network.state_dict())
    lacking = without(state, 'visual.transformer.resblocks.1.ln_2.bias')
    for odd, named in (
        (lacking, 'vision_model.encoder.layers.1.layer_norm2.bias'),
        ({**state, 'visual.extra': torch.zeros(2)}, 'visual.extra'),
        ({**state, 'extra': torch.zeros(2)}, 'extra'),
        ({**state, 'visual.proj': torch.zeros(32, 13)}, 'visual_projection.weight'),
    ):
        with pytest.raises(UserError, match=f'is not the CLIPTeacher.*\n.*: {named}'):
            teacher.fill(odd, 'a file')


def test_the_names_of_hugging_face_are_those_of_the_network() -> None:
    state: dict[str, Tensor] = nn.Module.state_dict(build(SMALL).network)
    text = {name: torch.zeros(1) for name in ('text_model.a.b', 'text_projection.weight', 'logit_scale')}
    positions = {'vision_model.embeddings.position_ids': torch.arange(5)[None]}
    assert sorted(clip_keys({**state, **text, **positions})) == sorted(state)
