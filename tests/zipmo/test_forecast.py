"""Every forecaster through one call, futures of a picture file, and loading what was trained."""

import cv2
import numpy as np
import pytest
import tiny
import torch

from kinelib.learning import checkpoints
from kinelib.notation import ShapeError, cell_centres
from kinelib.tracks.tracks import Poke
from kinelib.zipmo import baselines
from kinelib.zipmo.forecast import DirectForecast, LatentForecast, RegressionForecast
from kinelib.zipmo.generate import generate_tracks, read_picture
from kinelib.zipmo.pretrained import load_baselines, load_latent, load_stage

ONE_ANSWER = ("static", "copy_nearest", "linear", "linear_local", "constant_velocity")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of all four stages."""
    folder = tmp_path_factory.mktemp("zipmo")
    networks = {"autoencoder": tiny.autoencoder(noise=0.02), "planner": tiny.planner(), "regression": tiny.regression()}
    for stage, network in (networks | {"direct": tiny.direct()}).items():
        checkpoints.save(folder / stage, network, card="a test")
    return folder


def forecasters(folder):
    latent = {f"latent {c}": load_latent(folder, steps=1, correction=c) for c in (None, "gradient", "snap", "gradient+snap")}
    return {name: getattr(baselines, name) for name in ONE_ANSWER} | load_baselines(folder, steps=2) | latent


def test_all_share_one_call_and_start_where_asked(folder):
    (pokes, mask), points = tiny.pokes(), tiny.starts(2, 5)
    mask[1, 1:] = False
    found = forecasters(folder)
    assert len(found) == 11 and {"regression", "direct"} < found.keys()
    for name, forecast in found.items():
        call = lambda frames, seed, forecast=forecast: forecast(
            tiny.frames(), pokes, mask, points, num_frames=frames, samples=3, seed=seed
        )
        answers = [call(17, 1), call(17, 1), call(17, 2), call(1, 1)]
        for tracks, frames in zip(answers, (17, 17, 17, 1), strict=True):
            assert tracks.shape == (2, 1 if name in (*ONE_ANSWER, "regression") else 3, 5, frames, 2), name
            assert torch.allclose(tracks[:, :, :, 0], points[:, None].expand(-1, tracks.shape[1], -1, -1), atol=1e-6), name
            assert tracks.isfinite().all() and not tracks.requires_grad
        assert torch.equal(answers[0], answers[1]), name
        assert torch.equal(answers[0], answers[2]) == (name in (*ONE_ANSWER, "regression")), name


def test_no_poke_at_all_is_answered_by_all(folder):
    for count in (0, 2):
        pokes, mask = tiny.pokes(count=count)
        for name, forecast in forecasters(folder).items():
            tracks = forecast(tiny.frames(), pokes, mask & False, tiny.starts(2, 3), samples=2)
            assert tracks.isfinite().all() and tracks.shape[2:] == (3, 64, 2), name


@pytest.mark.parametrize("correction", [None, "snap"])
def test_a_point_of_a_latent_sample_does_not_depend_on_the_others(folder, correction):
    forecast, points = load_latent(folder, steps=2, correction=correction), tiny.starts(2, 40)
    together = forecast(tiny.frames(), *tiny.pokes(), points, samples=2)
    alone = forecast(tiny.frames(), *tiny.pokes(), points[:, 7:9], samples=2)
    assert torch.allclose(together[:, :, 7:9], alone, atol=1e-4)


def test_decoding_latents_matches_the_autoencoder(folder):
    forecast, points = load_latent(folder, steps=2), tiny.starts(2, 4)
    latents = forecast.latents(tiny.frames(), *tiny.pokes(), samples=3)
    decoded = forecast.decode(latents, tiny.frames(), points)
    ae = forecast.autoencoder
    for k in range(3):
        expected = ae.decode(ae.denormalize(latents[:, k]), tiny.frames(), points)
        assert torch.allclose(decoded[:, k], expected, atol=1e-5)


def test_wrong_combinations_are_refused(folder):
    autoencoder, planner = load_stage("autoencoder", folder), load_stage("planner", folder)
    with pytest.raises(ValueError, match="unknown correction 'gradeint'"):
        LatentForecast(autoencoder, planner, correction="gradeint")
    wide = tiny.AUTOENCODER.__class__(**{**vars(tiny.AUTOENCODER), "channels": 4})
    with pytest.raises(ValueError, match="trained together"):
        LatentForecast(tiny.autoencoder(wide), planner)
    with pytest.raises(ValueError, match="unknown stage 'plan'"):
        load_stage("plan", folder)
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        load_latent(folder / "elsewhere")
    assert load_baselines(folder / "elsewhere") == {}
    regression = RegressionForecast(autoencoder, load_stage("regression", folder))
    for forecast in (LatentForecast(autoencoder, planner), regression, DirectForecast(load_stage("direct", folder))):
        for points, frames in ((tiny.starts(1, 3), 64), (tiny.starts(2, 3) * torch.nan, 64), (tiny.starts(2, 3), 0)):
            with pytest.raises(ShapeError):
                forecast(tiny.frames(), *tiny.pokes(), points, num_frames=frames)


# ---- a picture file


@pytest.fixture
def picture(tmp_path):
    """A picture that is not square."""
    path = tmp_path / "street.png"
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def test_futures_of_a_picture(folder, picture, tmp_path):
    out = tmp_path / "new" / "futures.npz"
    options = dict(samples=3, seed=4, checkpoint=folder, grid=5, num_frames=9, steps=2)
    pokes = [Poke((0.1, 0.2), (0.5, 0.2)), Poke((-0.5, 0.0), (-0.5, 0.0), 0.5)]
    tracks = generate_tracks(picture, pokes, out=out, correction="snap", **options)
    assert tracks.shape == (3, 25, 9, 2)
    saved = np.load(out)
    assert np.array_equal(saved["tracks"], tracks.numpy()) and int(saved["seed"]) == 4
    assert np.allclose(saved["query_points"], cell_centres(5, 5)) and saved["pokes"].shape == (2, 5)
    assert [path.name for path in out.parent.iterdir()] == ["futures.npz"]
    assert torch.equal(tracks, generate_tracks(picture, pokes, correction="snap", **options))
    points = torch.tensor([[0.1, 0.2]])
    held = generate_tracks(picture, pokes, query_points=points, correction="snap", **options)
    assert torch.allclose(held[:, 0, -1], torch.tensor([0.5, 0.2]).expand(3, 2), atol=2e-3)
    assert generate_tracks(picture, [], **options).shape == (3, 25, 9, 2)


def test_nothing_is_overwritten_unless_asked(folder, picture, tmp_path):
    out = tmp_path / "futures.npz"
    out.write_bytes(b"precious")
    options = dict(out=out, checkpoint=folder, samples=1, steps=1, grid=2)
    with pytest.raises(FileExistsError, match="exists"):
        generate_tracks(picture, [], **options)
    assert out.read_bytes() == b"precious"
    generate_tracks(picture, [], overwrite=True, **options)
    assert np.load(out)["tracks"].shape == (1, 4, 64, 2)


def test_bad_pictures_and_pokes_are_refused(folder, picture, tmp_path):
    text, empty = tmp_path / "a.png", tmp_path / "b.png"
    text.write_text("not a picture")
    empty.touch()
    out = tmp_path / "out.npz"
    call = lambda path, *pokes, **options: generate_tracks(path, pokes, checkpoint=folder, steps=1, out=out, **options)
    for bad in (text, empty):
        with pytest.raises(ValueError, match="not a picture"):
            call(bad)
    with pytest.raises(FileNotFoundError, match="no picture"):
        call(tmp_path / "missing.png")
    with pytest.raises(FileNotFoundError):
        call(tmp_path)
    with pytest.raises(ShapeError, match="outside the frame"):
        call(picture, Poke((1.2, 0.0), (0.0, 0.0)))
    with pytest.raises(ShapeError, match="17 pokes .* at most 16"):
        call(picture, *[Poke((0.0, 0.0), (0.1, 0.0))] * 17)
    for options in ({"grid": 0}, {"samples": 0}, {"num_frames": 0}, {"guidance": -1.0}, {"correction": "snip"}):
        with pytest.raises(ValueError):
            call(picture, **options)
    assert not out.exists()
    assert read_picture(picture).shape == (30, 50, 3)
