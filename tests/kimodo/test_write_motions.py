"""`generate motion`: files come, sequences and constraints are heeded, and nothing is overwritten or begun on bad input."""

import pytest
import torch

from kinelib.bodies.motion_files import load_motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.skeletons import SMPLX22
from kinelib.kimodo.constraint_files import save_constraints
from kinelib.kimodo.constraint_makers import keyframes
from kinelib.kimodo.denoiser import DenoiserConfig, TwoStageDenoiser
from kinelib.kimodo.metrics import constraint_errors
from kinelib.kimodo.write_motions import generate_motions
from kinelib.learning import checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    where = tmp_path_factory.mktemp("kimodo")
    model = TwoStageDenoiser(DenoiserConfig(width=32, layers=1, ffn=32, heads=2))
    checkpoints.save(where / "denoiser", model, card="untrained, for a test")
    return where


def test_prompts_one_after_another_are_written(folder, tmp_path):
    said = []
    made = generate_motions(
        ["A person walks.", "A person waves."],
        [1.5, 1.0],
        samples=2,
        steps=3,
        checkpoint=folder,
        out=tmp_path / "two.npz",
        say=said.append,
    )
    assert [len(motion) for motion in made] == [50, 50] and len(said) == 2 and "foot skate" in said[0]
    read = load_motion(tmp_path / "two-1.npz")
    assert torch.allclose(read.positions(), made[1].positions(), atol=1e-4)
    assert read.provenance["prompt"] == "A person walks. A person waves."
    assert not torch.allclose(made[0].root, made[1].root), "samples differ"
    again = generate_motions(["A person walks.", "A person waves."], [1.5, 1.0], samples=1, steps=3, checkpoint=folder)
    assert torch.allclose(again[0].positions(), made[0].positions(), atol=1e-5), "the same seed, the same motion"


def test_constraints_are_met_after_clean_up(folder, tmp_path):
    clip = procedural_clips(1, 3, contents=("walk",))[0].motion.slice(0, 40)
    wanted = keyframes(clip, (0, 20, 39))
    save_constraints(tmp_path / "poses.json", [wanted], SMPLX22, 20.0)
    ask = dict(constraints=tmp_path / "poses.json", steps=3, checkpoint=folder)
    cleaned = generate_motions(["A person walks."], [2.0], **ask)[0]
    raw = generate_motions(["A person walks."], [2.0], cleanup=False, **ask)[0]
    assert constraint_errors(cleaned, [wanted]).means()["keyframe"] < 0.01
    assert constraint_errors(raw, [wanted]).means()["keyframe"] > 0.05


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"seconds": [1.0, 2.0, 3.0]}, ValueError, "one duration for all prompts or one each; got 3 for 2"),
        ({"out": "walk.fbx"}, ValueError, ".npz, .bvh, .glb"),
        ({"samples": 0}, ValueError, "at least 1"),
        ({"constraints": "missing.json"}, FileNotFoundError, "missing.json"),
        ({"stage": "procedural"}, FileNotFoundError, "holds denoiser"),
        ({"solver": "euler"}, ValueError, "euler"),
    ],
)
def test_bad_input_is_refused(folder, options, kind, said):
    with pytest.raises(kind, match=said):
        generate_motions(["A person walks.", "A person runs."], **{"checkpoint": folder, "steps": 2, **options})


def test_nothing_is_overwritten(folder, tmp_path):
    (tmp_path / "a-1.bvh").write_text("mine")
    with pytest.raises(FileExistsError, match=r"a-1\.bvh"):
        generate_motions([""], samples=2, steps=2, checkpoint=folder, out=tmp_path / "a.bvh")
    assert (tmp_path / "a-1.bvh").read_text() == "mine" and not (tmp_path / "a-0.bvh").exists()


def test_the_papers_way_of_sampling_is_one_switch(folder):
    ask = dict(seconds=[1.0], steps=3, checkpoint=folder, cleanup=False)
    ours, theirs = (generate_motions(["A person walks."], **ask, published=published)[0] for published in (False, True))
    assert (ours.provenance["correction"], ours.provenance["guidance"]) == ("pull", [2.0, 1.0])
    assert (theirs.provenance["correction"], theirs.provenance["guidance"]) == ("none", [2.0, 2.0])
    other = generate_motions(["A person walks."], **ask, published=True, guidance=(1.5, 2.5))[0]
    assert other.provenance["guidance"] == [1.5, 2.5] and other.provenance["guidance_kind"] == "separated"
