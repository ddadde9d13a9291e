"""Official weights in our modules, and our sampler against a plain transcription of the published one."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kinelib.bench.kimodo import bench_kimodo, kimodo_table, measure_kimodo
from kinelib.bodies import features, kinematics, skeletons
from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.rotations import from_6d
from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.kimodo.diffusion import ddim, even_steps
from kinelib.kimodo.guidance import GuidedDenoiser
from kinelib.kimodo.plain_sampler import plain_clean, plain_guided, plain_sample
from kinelib.official import parity, parity_report
from kinelib.official.kimodo import load_kimodo, read_statistics

REFERENCE = Path(os.environ.get("KINELIB_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "kimodo_smplx22_io.safetensors").is_file(),
    reason="no reference folder; set KINELIB_REFERENCE to one to compare with recorded outputs of the release",
)
OUTPUTS = {
    "features", "local_root", "decoded_joints", "decoded_root", "decoded_contacts", "clean_pred",
    "clean_pred_unconstrained", "guided_separated", "guided_regular", "ddim_sample",
}  # fmt: skip
BACK = [  # our names -> the release's
    (r"^(root|body)\.", r"\1_model."), (r"text_in\.", "embed_text."), (r"step_in\.", "embed_timestep.time_embed."),
    (r"heading_in\.", "linear_first_heading_angle."), (r"features_out\.", "output_linear."),
    (r"layers\.", "seqTransEncoder.layers."), (r"query_key_value\.", "self_attn.in_proj_"),
    (r"(\d)\.out\.", r"\1.self_attn.out_proj."), (r"\bup\.", "linear1."), (r"\bdown\.", "linear2."),
    (r"attention_norm\.", "norm1."), (r"feed_norm\.", "norm2."), (r"features_in\.", "input_linear."),
]  # fmt: skip


def official_network(joints, seed=0):
    """A random denoiser in the official layout, with statistics."""
    torch.manual_seed(seed)
    sizes = dict(width=32, layers=2, heads=4, ffn=40, text_width=12, registers=3, fps=30.0, max_frames=300)
    off = dict.fromkeys(("broadcast", "modulate", "ahead", "skip", "whiten_text"), False)
    config = DenoiserConfig(joints=joints, norm="post", patch=1, root_filter=0.0, body_filter=0.0, **off, **sizes)
    model = TwoStageDenoiser(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        weight += 0.05 * torch.randn_like(weight) * (not name.endswith("mask_in.weight"))
    size = config.features
    model.set_statistics(
        Statistics(torch.randn(size) * 0.1, torch.rand(size) + 0.5), Statistics(torch.randn(4) * 0.1, torch.rand(4) + 0.5)
    )
    return model


def official_state(model):
    """Its weights under the release's names."""
    state = {}
    for name, weight in model.state_dict().items():
        if "statistics" in name or "mask_in" in name:
            continue
        if name.endswith("features_in.weight"):
            weight = torch.cat([weight, model.get_parameter(name.replace("features_in", "mask_in"))], dim=1)
        for pattern, replacement in BACK:
            name = re.sub(pattern, replacement, name)
        state[name] = weight.contiguous()
    return state


def drawing(model, frames=10, lengths=(10, 7)):
    """noise, and the conditions text, first heading, mask, target, lengths."""
    rng = torch.Generator().manual_seed(1)
    size, batch = model.config.features, len(lengths)
    noise, target = (torch.randn(batch, frames, size, generator=rng) for _ in range(2))
    text = torch.randn(batch, 1, model.config.text_width, generator=rng)
    mask = torch.rand(batch, frames, size, generator=rng) < 0.1
    return noise, (text, torch.tensor([0.3, -1.2])[:batch], mask, target, torch.tensor(lengths))


def write_case(folder, name, skeleton):
    """A pair of files as the release's would be: official names, outputs by the plain transcription."""
    model = official_network(len(skeleton))
    noise, conditions = drawing(model)
    rng = torch.Generator().manual_seed(2)
    turns = from_6d(torch.randn(2, 10, len(skeleton), 6, generator=rng))
    root = torch.randn(2, 10, 3, generator=rng).cumsum(1) * 0.1
    lengths, steps = conditions[-1], torch.tensor([37, 912])
    encoded = features.encode_batch(turns, root, lengths, 30, skeleton)
    decoded = features.decode(encoded, features.FeatureLayout(skeleton))
    free = (*conditions[:2], torch.zeros_like(conditions[2]), *conditions[3:])
    both, none = plain_clean(model, noise, steps, conditions), None
    none = plain_clean(model, noise, steps, (torch.zeros_like(conditions[0]), *free[1:]))
    recorded = {
        "local_rotations": turns,
        "root_positions": root,
        "lengths": lengths,
        "neutral_joints": skeleton.rest(),
        "parents": torch.tensor(skeleton.parents),
        "feature_mean": model.statistics.mean,
        "feature_std": model.statistics.std,
        "local_root_mean": model.local_statistics.mean,
        "local_root_std": model.local_statistics.std,
        "noisy": noise,
        "timestep": steps,
        "text": conditions[0],
        "first_heading": conditions[1],
        "mask": conditions[2].float(),
        "target_normalized": conditions[3],
        "ddim_steps": torch.tensor(even_steps(4)[::-1]),
        "features": encoded,
        "local_root": features.local_root(encoded[..., :5], 30, lengths),
        "decoded_joints": kinematics.forward(turns, root, skeleton)[0],
        "decoded_root": root,
        "decoded_contacts": decoded.contacts.float(),
        "clean_pred": both,
        "clean_pred_unconstrained": plain_clean(model, noise, steps, free),
        "guided_separated": plain_guided(model, noise, steps, conditions, (2.0, 1.5)),
        "guided_regular": none + 2.5 * (both - none),
        "ddim_sample": plain_sample(model, noise, conditions, steps=4, weights=(2.0, 1.5)),
    }
    for output in OUTPUTS:  # frames beyond the end are garbage in a recording
        recorded[output] = recorded[output].clone()
        recorded[output][1, 7:] = 1e3
    recorded["features"][1, 7:, [0, 2]] = encoded[1, 7:, [0, 2]]
    config = {"names": skeleton.joints, "heads": 4, "text_tokens": 4, "fps": 30, "cfg_separated": [2.0, 1.5]}
    config |= {"cfg_regular": 2.5, "ddim_steps": 4}
    save_file(official_state(model), folder / f"{name}_weights.safetensors")
    contents = {key: value.contiguous() for key, value in recorded.items()}
    save_file(contents, folder / f"{name}_io.safetensors", metadata={"config": json.dumps(config)})


# ---- parity


@needs_reference
def test_every_recorded_output_of_the_release():
    rows = [row for row in parity(REFERENCE) if row.case.startswith("kimodo")]
    assert {row.output for row in rows if row.case == "kimodo_smplx22"} == OUTPUTS
    assert all(not row.note and row.passes(1e-5) for row in rows), parity_report(REFERENCE)[0]


@needs_reference
def test_the_plain_transcription_itself_equals_the_release():
    with safe_open(REFERENCE / "kimodo_smplx22_io.safetensors", "pt") as file:
        config, io = json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    statistics = (
        Statistics(io["feature_mean"], io["feature_std"]),
        Statistics(io["local_root_mean"], io["local_root_std"]),
    )
    sizes = dict(heads=config["heads"], text_slots=config["text_tokens"], fps=config["fps"], statistics=statistics)
    model = load_kimodo(REFERENCE / "kimodo_smplx22_weights.safetensors", **sizes)
    keys = ("text", "first_heading", "mask", "target_normalized", "lengths")
    drawn = plain_sample(model, io["noisy"], tuple(io[key] for key in keys), steps=5, weights=config["cfg_separated"])
    for clip, length in enumerate(io["lengths"].tolist()):
        assert torch.allclose(drawn[clip, :length], io["ddim_sample"][clip, :length], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "skeleton"),
    [("kimodo_soma30", skeletons.SOMA30), ("kimodo_g1", skeletons.G1_34), ("kimodo_smplx22", skeletons.SMPLX22)],
)
def test_every_output_on_every_skeleton_equals_the_transcription(name, skeleton, tmp_path):
    write_case(tmp_path, name, skeleton)
    rows = parity(tmp_path)
    assert {row.output for row in rows} == OUTPUTS
    assert all(not row.note and row.passes(5e-5) for row in rows), parity_report(tmp_path)[0]


def test_a_changed_weight_fails_and_leaves_the_features_alone(tmp_path):
    write_case(tmp_path, "kimodo_soma30", skeletons.SOMA30)
    weights = load_file(tmp_path / "kimodo_soma30_weights.safetensors")
    weights["body_model.output_linear.bias"][7] += 0.05
    save_file(weights, tmp_path / "kimodo_soma30_weights.safetensors")
    failed = {row.output for row in parity(tmp_path) if not row.passes(1e-4)}
    assert failed == {"clean_pred", "clean_pred_unconstrained", "guided_separated", "guided_regular", "ddim_sample"}
    assert not parity_report(tmp_path)[1]


# ---- loading


def test_sizes_are_inferred_and_wrappers_and_stored_codes_are_taken_off(tmp_path):
    model = official_network(30)
    state = {f"denoiser.{name}": weight for name, weight in official_state(model).items()}
    state |= {"denoiser.root_model.sequence_pos_encoder.pe": torch.zeros(5, 1, 32), "text_encoder.weight": torch.zeros(1)}
    save_file(state, tmp_path / "model.safetensors")
    for part, numbers in (("global_root", slice(0, 5)), ("body", slice(5, None)), ("local_root", None)):
        (tmp_path / "stats" / part).mkdir(parents=True)
        source = model.local_statistics if numbers is None else model.statistics
        for kind in ("mean", "std"):
            values = getattr(source, kind)[numbers if numbers is not None else slice(None)]
            np.save(tmp_path / "stats" / part / f"{kind}.npy", values.numpy())
    found = load_kimodo(tmp_path / "model.safetensors", heads=4, text_slots=4, statistics=tmp_path / "stats")
    assert (found.config.skeleton, found.config.joints, found.config.layers, found.config.ffn) == ("soma30", 30, 2, 40)
    noise, conditions = drawing(model)
    steps = torch.tensor([5, 700])
    assert torch.equal(found(noise, steps, *conditions), model(noise, steps, *conditions))
    (tmp_path / "stats" / "body" / "std.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"std.npy is missing"):
        read_statistics(tmp_path / "stats")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("root_model.embed_text.weight"), "not the state dict of one Kimodo denoiser"),
        (lambda state: state.pop("body_model.output_linear.bias"), "missing body_model.output_linear.bias"),
        (lambda state: state.pop("body_model.embed_text.bias"), "missing body.text_in.bias"),
        (lambda state: state.update({"root_model.extra": torch.zeros(1)}), "unexpected root.extra"),
        (lambda state: state.update({"body_model.output_linear.bias": torch.zeros(99)}), "99 channels"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_by_name(change, message):
    state = official_state(official_network(22))
    change(state)
    with pytest.raises(ValueError, match=message):
        load_kimodo(state, heads=4, text_slots=4)


# ---- our sampler and the plain one


@pytest.mark.parametrize("constrained", [True, False])
def test_our_sampler_equals_the_plain_one(constrained):
    model = official_network(22)
    noise, conditions = drawing(model)
    if not constrained:
        conditions = (*conditions[:2], torch.zeros_like(conditions[2]), *conditions[3:])
    ours = ddim(GuidedDenoiser(model, 10, *conditions, weights=(2.0, 1.5)), noise, 6)
    plain = plain_sample(model, noise, conditions, steps=6, weights=(2.0, 1.5))
    for clip, length in enumerate(conditions[-1].tolist()):
        assert (ours - plain)[clip, :length].abs().max() <= 2e-5 * plain[clip, :length].abs().max()


def test_the_measurement_of_speed_has_its_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr("kinelib.kimodo.denoiser.PAPER_S", official_network(22).config)
    rows = measure_kimodo(rounds=1, steps=2)
    assert [row["what"] for row in rows] == ["text", "text and constraints"]
    assert [row["predictions"] for row in rows] == [2, 3]
    assert all(row["largest_difference"] < 1e-4 and row["ratio"] > 0 and row["fast_ratio"] > 0 for row in rows)
    assert kimodo_table(rows).count("|") > 20
    with pytest.raises(ValueError, match="at least 1 and steps at least 2"):
        measure_kimodo(steps=1)
    out = tmp_path / "bench.json"
    assert "text and constraints" in bench_kimodo(threads=1, json_path=out, rounds=1)
    assert len(json.loads(out.read_text())["rows"]) == 2
