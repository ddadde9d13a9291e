"""`generate motion --system kinmo`: files come, prompts follow each other, nothing is overwritten or begun on bad input."""

from functools import partial

import pytest
import torch
from toy_model import kinmo

from kinelib.bodies.motion_files import load_motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.kinmo import write_motions
from kinelib.kinmo.sampling import Sampler
from kinelib.kinmo.write_motions import WAY, generate_motions, group_table


@pytest.fixture(scope="module")
def model():
    return kinmo(procedural_clips(2, 3, contents=("walk",), seconds=(2.0, 2.0)))


@pytest.fixture(autouse=True)
def loaded(model, monkeypatch):
    def load(stage, checkpoint):
        if stage != "generator":
            raise FileNotFoundError(f"there is no checkpoint {stage!r}")
        return model

    monkeypatch.setattr(write_motions, "load_kinmo", load)
    # Of eight codes the likeliest tenth is one, which leaves nothing to draw.
    monkeypatch.setattr(write_motions, "Sampler", partial(Sampler, kept=1.0))


def test_prompts_one_after_another_are_written(tmp_path):
    said = []
    made = generate_motions(
        ["A person walks.", "A person waves."], [1.6, 1.0], samples=2, steps=2, out=tmp_path / "two.npz", say=said.append
    )
    frames = 32 + round(20 * WAY) + 20
    assert [len(motion) for motion in made] == [frames, frames] and len(said) == 2
    read = load_motion(tmp_path / "two-1.npz")
    assert torch.allclose(read.positions(), made[1].positions(), atol=1e-4)
    assert read.provenance["prompt"] == "A person walks. A person waves."
    assert not torch.allclose(made[0].root, made[1].root), "samples differ"
    again = generate_motions(["A person walks.", "A person waves."], [1.6, 1.0], steps=2)[0]
    assert torch.allclose(again.positions(), made[0].positions(), atol=1e-4), "the same seed, the same motion"


def test_sentences_of_groups_are_heard():
    plain = generate_motions(["A person walks."], [1.0], steps=2)[0]
    told = generate_motions(["A person walks."], [1.0], steps=2, groups=["left_arm=The left arm waves."])[0]
    assert told.provenance["groups"] == {"left_arm": "The left arm waves."} and "groups" not in plain.provenance
    assert group_table(["torso = It bows.", "torso|neck="]) == {"torso": "It bows.", "torso|neck": ""}


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"seconds": [1.0, 2.0, 3.0]}, ValueError, "one duration for all prompts or one each; got 3 for 2"),
        ({"seconds": [9.0]}, ValueError, "up to 5 s"),
        ({"out": "walk.fbx"}, ValueError, ".npz, .bvh, .glb"),
        ({"samples": 0}, ValueError, "at least 1"),
        ({"stage": "big"}, FileNotFoundError, "big"),
        ({"groups": ["left_arm"]}, ValueError, "GROUP=SENTENCE"),
        ({"groups": ["tail=wags"]}, KeyError, "tail"),
        ({"levels": 7}, ValueError, "levels are 1 to 3"),
    ],
)
def test_bad_input_is_refused(options, kind, said):
    with pytest.raises(kind, match=said):
        generate_motions(["A person walks.", "A person runs."], **{"steps": 2, **options})


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "a-1.bvh").write_text("mine")
    with pytest.raises(FileExistsError, match=r"a-1\.bvh"):
        generate_motions(["A person walks."], samples=2, steps=2, out=tmp_path / "a.bvh")
    assert (tmp_path / "a-1.bvh").read_text() == "mine" and not (tmp_path / "a-0.bvh").exists()
