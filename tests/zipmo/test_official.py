"""Official weights in our modules: every output equals the release's, in (x, y), whatever the grid, slots and guidance."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transcription import decode, encode, random_state, sample, velocity

from kinelib.official import load_official, parity, parity_report

REFERENCE = Path(os.environ.get("KINELIB_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "zipmo_sparse_io.safetensors").is_file(),
    reason="no reference folder; set KINELIB_REFERENCE to one to compare with recorded outputs of the release",
)
ZIPMO_OUTPUTS = {
    "latent_mean",
    "latent_logvar",
    "decoded_at_starts",
    "decoded_at_queries",
    "velocity",
    "velocity_uncond",
    "sampled_latents",
    "sampled_tracks",
}
# name, latent grid, feature grid, poke slots, pokes given, padded, guidance
CASES = [
    ("zipmo_sparse", (1, 4, 4), (4, 4), 5, 3, True, 1.0),
    ("zipmo_dense", (1, 4, 4), (4, 4), 6, 6, False, 1.0),
    ("zipmo_time4", (4, 3, 5), (2, 3), 5, 3, True, 2.5),
]


def write_case(folder, name, grid, feature_grid, slots, given, padded, cfg_scale):
    """Writes a pair of files of a random network, with outputs computed by the transcription."""
    shape = {"grid": grid, "feature_grid": feature_grid}
    weights = random_state(width=128, heads=2, cross=64, channels=8, time_width=32, depth=2, **shape)
    rng = torch.Generator().manual_seed(1)
    cells, frames = grid[0] * grid[1] * grid[2], 6
    tracks = torch.rand(2, 5, frames, 2, generator=rng) * 2 - 1
    queries = torch.rand(2, 3, 2, generator=rng) * 2 - 1
    pokes = torch.rand(2, given, 5, generator=rng) * 2 - 1
    features = torch.randn(2, feature_grid[0] * feature_grid[1], 64, generator=rng)
    noise, time = torch.randn(2, cells, 8, generator=rng), torch.tensor([0.3, 0.9])
    mean, logvar = encode(weights, tracks, features)
    where = (slots, grid, feature_grid)
    drawn = sample(weights, noise, features, pokes, *where, 3, cfg_scale)
    latents = drawn / (0.5 / 11.6) ** 0.5 - 0.175
    recorded = {
        "image_features": features,
        "tracks_yx": tracks,
        "query_yx": queries,
        "pokes_yx": pokes,
        "noise": noise,
        "time": time,
        "latent_mean": mean,
        "latent_logvar": logvar,
        "decoded_at_starts": decode(weights, mean, features, tracks[:, :, 0], frames),
        "decoded_at_queries": decode(weights, mean, features, queries, frames),
        "velocity": velocity(weights, noise, time, features, pokes, *where),
        "velocity_uncond": velocity(weights, noise, time, features, pokes[:, :0], *where),
        "sampled_latents": drawn,
        "sampled_tracks": decode(weights, latents, features, tracks[:, :, 0], frames),
    }
    config = {"latent_grid": grid, "feature_grid": feature_grid, "poke_slots": slots, "padded": padded}
    config |= {"sample_steps": 3, "cfg_scale": cfg_scale, "latent_shift": -0.175, "latent_variance": 11.6}
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / f"{name}_weights.safetensors")
    save_file(
        {key: value.contiguous() for key, value in recorded.items()},
        folder / f"{name}_io.safetensors",
        metadata={"config": json.dumps(config)},
    )


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_every_output_equals_a_plain_transcription(case, tmp_path):
    write_case(tmp_path, *case)
    rows = parity(tmp_path)
    assert {row.output for row in rows} == ZIPMO_OUTPUTS
    assert all(row.passes(1e-5) for row in rows), parity_report(tmp_path)[0]


@needs_reference
def test_the_transcription_itself_equals_the_release():
    with safe_open(REFERENCE / "zipmo_sparse_io.safetensors", "pt") as file:
        config, io = json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights = {name: tensor.float() for name, tensor in load_file(REFERENCE / "zipmo_sparse_weights.safetensors").items()}
    mean, _ = encode(weights, io["tracks_yx"], io["image_features"])
    where = (config["poke_slots"], config["latent_grid"], config["feature_grid"])
    out = velocity(weights, io["noise"], io["time"], io["image_features"], io["pokes_yx"], *where)
    assert torch.allclose(mean, io["latent_mean"], atol=1e-5)
    assert torch.allclose(out, io["velocity"], atol=1e-5)


@needs_reference
def test_reference_pairs_agree_with_recorded_outputs():
    rows = [row for row in parity(REFERENCE) if row.case in ("zipmo_sparse", "zipmo_dense", "zipmo_time4")]
    assert {row.output for row in rows if row.case == "zipmo_sparse"} == ZIPMO_OUTPUTS
    assert all(not row.note and row.passes(1e-5) for row in rows)


def test_the_report_names_failures_and_what_it_does_not_know(tmp_path):
    write_case(tmp_path, *CASES[0])
    text, good = parity_report(tmp_path)
    assert good and "8 of 8 outputs agree" in text
    for part in ("io", "weights"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"gpt_{part}.safetensors")
    text, good = parity_report(tmp_path)
    assert not good and "8 of 8 outputs agree" in text
    assert "unknown system" in [line for line in text.splitlines() if line.startswith("gpt")][0]
    for part in ("io", "weights"):
        (tmp_path / f"gpt_{part}.safetensors").unlink()

    weights = load_file(tmp_path / "zipmo_sparse_weights.safetensors")
    weights["out_proj.proj.weight"][0, 0] += 0.1
    save_file(weights, tmp_path / "zipmo_sparse_weights.safetensors")
    text, good = parity_report(tmp_path)
    assert not good
    verdicts = {line.split()[1]: line.split()[-1] for line in text.splitlines() if line.startswith("zipmo")}
    assert verdicts["latent_mean"] == "ok" and verdicts["velocity"] == "0.0001"


def test_a_report_without_a_comparison_is_not_a_success(tmp_path):
    with pytest.raises(FileNotFoundError, match="no NAME_weights"):
        parity_report(tmp_path)
    for part in ("io", "weights"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"kimodo_a_{part}.safetensors")
    assert not parity_report(tmp_path)[1]
    save_file({"x": torch.zeros(1)}, tmp_path / "zipmo_sparse_io.safetensors")
    text, good = parity_report(tmp_path)
    assert not good and "zipmo_sparse_weights.safetensors is missing" in text


def test_a_recorded_output_that_nothing_computes_fails(tmp_path):
    write_case(tmp_path, *CASES[0])
    path = tmp_path / "zipmo_sparse_io.safetensors"
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors | {"decoded_backwards": torch.zeros(1)}, path, metadata=metadata)
    text, good = parity_report(tmp_path)
    assert not good and "nothing computes it" in text
    save_file(tensors | {"latent_mean": tensors["latent_mean"] * float("nan")}, path, metadata=metadata)
    assert not parity_report(tmp_path)[1]


def state(**changes):
    sizes = {"width": 128, "heads": 2, "cross": 64, "channels": 8, "time_width": 32}
    return random_state(grid=(1, 2, 3), feature_grid=(2, 2), **sizes | changes)


def test_sizes_are_inferred_and_an_autoencoder_alone_will_do():
    found = load_official(state(), poke_slots=40)
    assert found.codec.latent_shape == (1, 2, 3, 8) and found.codec.config.feature_grid == (2, 2)
    assert (found.planner.config.poke_slots, found.planner.config.zero_slot_sinks) == (40, True)
    assert not found.codec.training and not found.planner.training
    alone = {name.removeprefix("vae."): tensor for name, tensor in state().items() if name.startswith("vae.")}
    assert load_official(alone).planner is None


def test_image_encoder_tensors_are_handed_on_and_compiled_prefixes_removed():
    extra = {"vae.img.blocks.0.attn.qkv.weight": torch.ones(1), "img.cls_token": torch.ones(1)}
    weights = {"_orig_mod." + name: tensor for name, tensor in (state() | extra).items()}
    assert load_official(weights).image_encoder.keys() == extra.keys()


def test_files_load_without_pickle_and_missing_ones_say_so(tmp_path):
    expected = load_official(state()).codec.encoder.mean.weight
    torch.save({"model": state(), "step": 3}, tmp_path / "planner.pt")
    save_file(state(), tmp_path / "planner.safetensors")
    for name in ("planner.pt", "planner.safetensors"):
        assert torch.equal(load_official(tmp_path / name).codec.encoder.mean.weight, expected)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_official(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="filename"):
        load_official("hub")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("vae.encoder.query_pos"), "not a ZipMo state dict"),
        (lambda w: w.pop("vae.decoder.latents_in.bias"), "missing decoder.latents_in.bias"),
        (lambda w: w.update({"backbone.0.ff.extra": torch.zeros(1)}), "unexpected transformer.layers.0.ff.extra"),
        (lambda w: w.update({"out_proj.proj.weight": torch.zeros(8, 4)}), r"\(8, 4\), expected \(8, 128\)"),
        (lambda w: w.pop("learnable_emb_dino"), "no open-domain planner"),
        (lambda w: w["vae.encoder.query_pos"].mul_(-1), "not the cell centres"),
        (lambda w: w["vae.encoder.reg_pos"].add_(1), "origin"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_by_name(change, message):
    weights = state()
    change(weights)
    with pytest.raises(ValueError, match=message):
        load_official(weights)
