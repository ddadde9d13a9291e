"""Generating with released weights: the image encoder inside a checkpoint, and from a frame and pokes to tracks."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kinelib.notation import ShapeError, cell_centres
from kinelib.official import generate_tracks, load_official
from kinelib.official.reading import take_image_encoders
from kinelib.official.vision import VisionConfig, VisionTransformer, image_encoders

TINY = VisionConfig(width=64, depth=2, heads=1, patch=14, registers=4, grid=5)


def vision(seed=0, config=TINY):
    torch.manual_seed(seed)
    network = VisionTransformer(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(0, 0.2)
    return network


@pytest.fixture(scope="module")
def state():
    """A tiny state dict in the official layout, image encoders included: sixteen by sixteen image tokens, 2 x 3 latents."""
    import sys
    from pathlib import Path

    sys.path.append(str(Path(__file__).parents[1] / "zipmo"))
    try:
        from transcription import random_state
    finally:
        sys.path.pop()
    sizes = {"width": 64, "heads": 1, "cross": 64, "channels": 4, "time_width": 16}
    weights = random_state(grid=(1, 2, 3), feature_grid=(16, 16), **sizes)
    for prefix, seed in (("vae.img.model.", 0), ("img.model.", 1)):
        weights |= {prefix + name: tensor for name, tensor in vision(seed).state_dict().items()}
    weights["vae.img.mean"] = torch.zeros(3)
    return weights


def test_the_papers_image_encoder_has_its_parameter_count():
    with torch.device("meta"):
        network = VisionTransformer()
    assert sum(parameter.numel() for parameter in network.parameters()) == 86_583_552


def test_the_vision_transformer_is_the_public_architecture():
    network = vision()
    image = torch.randn(2, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    patches = torch.nn.functional.unfold(image, 14, stride=14).transpose(1, 2)
    x = patches @ network.patch_embed["proj"].weight.flatten(1).T + network.patch_embed["proj"].bias
    x = torch.cat([network.cls_token.expand(2, -1, -1), x], 1) + network.pos_embed
    x = torch.cat([x[:, :1], network.register_tokens.expand(2, -1, -1), x[:, 1:]], 1)
    for block in network.blocks:
        attention = nn.MultiheadAttention(64, 1, batch_first=True)
        attention.in_proj_weight.data, attention.in_proj_bias.data = block.attn["qkv"].weight, block.attn["qkv"].bias
        attention.out_proj.load_state_dict(block.attn["proj"].state_dict())
        normed = block.norm1(x)
        x = x + block.ls1["gamma"] * attention(normed, normed, normed)[0]
        x = x + block.ls2["gamma"] * block.mlp["fc2"](nn.functional.gelu(block.mlp["fc1"](block.norm2(x))))
    assert torch.allclose(network(image), network.norm(x)[:, 5:], atol=1e-4)
    assert network(torch.zeros(1, 3, 28, 42)).shape == (1, 6, 64)  # positions are resampled to another grid
    with pytest.raises(ShapeError, match="multiples of 14"):
        network(torch.zeros(1, 3, 30, 28))


def test_both_image_encoders_are_taken_from_the_checkpoint_with_what_lies_beside_them(state):
    found = load_official(state)
    assert {name.split(".")[0] for name in found.image_encoder} == {"vae", "img"} and "vae.img.mean" in found.image_encoder
    own, planners = image_encoders(found.image_encoder)
    frame = torch.rand(1, 3, 40, 60, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert own(frame).shape == (1, 256, 64) and not torch.allclose(own(frame), planners(frame), atol=1e-2)
    single = {name: tensor for name, tensor in found.image_encoder.items() if name.startswith("img.")}
    assert image_encoders(single)[0] is image_encoders(single)[1] or torch.equal(
        *(encoder(frame) for encoder in image_encoders(single))
    )
    chunked = {name.replace("blocks.", "blocks.0."): tensor for name, tensor in single.items()}
    assert torch.equal(image_encoders(chunked)[0](frame), planners(frame))
    wrong = {name: tensor for name, tensor in single.items() if not name.endswith("0.ls1.gamma")}
    with pytest.raises(ValueError, match="image encoder does not fit: missing blocks.0.ls1.gamma"):
        image_encoders(wrong)
    with pytest.raises(ValueError, match="holds no image encoder"):
        image_encoders({})
    bare = dict.fromkeys(["vae.encoder.to_mean.bias", "backbone.0.ff.norm.scale", "vae.cls_token"], torch.zeros(1))
    assert take_image_encoders(bare).keys() == {"vae.cls_token"} and len(bare) == 2


def test_from_a_file_a_frame_and_pokes_to_tracks(state, tmp_path):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "planner.safetensors")
    released = load_official(tmp_path / "planner.safetensors")
    frame = torch.rand(2, 3, 30, 50, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pokes = torch.tensor([[[-0.2, 0.1, 0.4, 0.1, 1.0]], [[0.5, 0.5, 0.5, 0.0, 1.0]]])
    points = cell_centres(3, 3).expand(2, -1, -1)
    options = {"samples": 3, "steps": 2, "num_frames": 4}
    tracks = generate_tracks(released, frame, pokes, points, **options)
    assert tracks.shape == (2, 3, 9, 4, 2) and torch.isfinite(tracks).all()
    assert torch.equal(generate_tracks(released, frame, pokes, points, **options), tracks)
    for other in (
        generate_tracks(released, frame, pokes, points, seed=1, **options),
        generate_tracks(released, frame.flip(-1), pokes, points, **options),
        generate_tracks(released, frame, pokes * 0.5, points, **options),
        generate_tracks(released, frame, pokes, points, mask=torch.zeros(2, 1), **options),
    ):
        assert not torch.allclose(other, tracks, atol=1e-3)
    # A sample is the planner's draw, decoded among the fillers that make the points eighty.
    own, planners = image_encoders(released.image_encoder)
    rng = torch.Generator().manual_seed(0)
    latents = released.planner.denormalize(
        released.planner.sample(planners(frame), pokes, samples=3, steps=2, generator=rng)
    )
    queries = torch.cat([points, (torch.rand(1, 71, 2, generator=rng) * 2 - 1).expand(2, -1, -1)], 1)
    expected = released.codec.decode(latents[:, 1], own(frame), queries, 4)[:, :9]
    assert torch.allclose(tracks[:, 1], expected, atol=1e-4)


def test_many_points_are_decoded_in_chunks_and_no_planner_is_refused(state):
    released = load_official(state)
    frame, pokes = torch.zeros(1, 3, 28, 28), torch.zeros(1, 0, 5)
    points = cell_centres(9, 10)[None]
    tracks = generate_tracks(released, frame, pokes, points, samples=1, steps=1, num_frames=2)
    assert tracks.shape == (1, 1, 90, 2, 2)
    alone = {name.removeprefix("vae."): tensor for name, tensor in state.items() if name.startswith("vae.")}
    with pytest.raises(ValueError, match="none; load the sparse"):
        generate_tracks(load_official(alone), frame, pokes, points)


def test_a_pickled_file_with_code_in_it_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"model": Trap()}, tmp_path / "planner.pt")
    with pytest.raises(Exception, match="weights_only|Weights only"):
        load_official(tmp_path / "planner.pt")
    assert not (tmp_path / "sprung").exists()
