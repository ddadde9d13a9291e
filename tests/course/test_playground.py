"""The playground wires the shipped model to a canvas: futures come, baselines stand beside it, wrong names are refused."""

import pytest

from kinelib.course.playground import offered_pictures, playground


@pytest.fixture(scope="module")
def pair():
    return playground("scene: vehicle", against="direct", samples=2, grid=3, num_frames=8, seed=1)


def test_same_poke_goes_to_both_models(pair):
    pair.poke((0.0, 0.0), (0.4, 0.0))
    ours, direct = pair.futures_of("zipmo"), pair.futures_of("direct")
    assert ours.xy.shape == direct.xy.shape == (2, ours.xy.shape[1], 8, 2)
    assert not ours.xy.equal(direct.xy)
    assert pair.most_pokes == 16, "the baseline was trained with no more"


def test_settings_of_the_model_are_sliders(pair):
    assert {"steps", "guidance", "samples", "seed"} <= set(pair.controls) and pair.takes_text


def test_unknown_baselines_and_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="choose one of regression, direct, autoregressive"):
        playground(against="diffusion")
    with pytest.raises(FileNotFoundError, match="nothing.png"):
        playground(tmp_path / "nothing.png")


def test_every_scene_family_is_offered():
    from kinelib.tracks.scenes import FAMILIES

    assert {f"scene: {family}" for family in FAMILIES} <= set(offered_pictures())
