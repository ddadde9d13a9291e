"""The two corrections, on decoders simple enough to say what they must do."""

import pytest
import tiny
import torch

from kinelib.notation import ShapeError
from kinelib.tracks.timing import read_at_time
from kinelib.zipmo.correction import gradient_correction, snap_to_pokes
from kinelib.zipmo.forecast import LatentForecast

TIME = torch.linspace(0, 1, 64)[:, None]


class LinearDecoder:
    """Every point moves by one linear map of the latents, growing linearly in time."""

    def __init__(self):
        self.map = torch.randn(128, 2, generator=torch.Generator().manual_seed(0)) * 0.05

    def features(self, frame):
        return None

    def denormalize(self, latents):
        return latents

    def decode(self, latents, frame, points, num_frames=None, features=None):
        move = latents.flatten(1) @ self.map
        return points.repeat_interleave(len(move) // len(points), 0)[:, :, None] + move[:, None, None] * TIME


def miss(tracks, pokes):
    """(B, K, P) distances from the goals of tracks (B, K, P, T, 2) that start at the pokes."""
    time = pokes[:, None, :, 4].expand(tracks.shape[:3])
    return (read_at_time(tracks, time) - pokes[:, None, :, 2:4]).norm(dim=-1)


def test_gradient_removes_the_error_of_a_linear_decoder():
    decoder, (pokes, mask) = LinearDecoder(), tiny.pokes(count=1)
    clean = torch.randn(6, *tiny.LATENT, generator=torch.Generator().manual_seed(1)) * 0.1
    after = []
    for rounds in (0, 1, 3, 8):
        corrected = gradient_correction(decoder, tiny.frames(), pokes, mask, 3, rounds)(clean)
        decoded = decoder.decode(corrected, None, pokes[..., :2])
        after.append(float(miss(decoded.unflatten(0, (2, 3)), pokes).mean()))
    assert after[0] > 0.3 and after[1] < 0.4 * after[0]
    assert after == sorted(after, reverse=True) and after[3] < 0.02


def test_gradient_moves_samples_of_the_small_autoencoder_towards_the_pokes():
    autoencoder, planner = tiny.autoencoder(noise=0.01), tiny.planner(noise=0.02)
    (pokes, mask), frame = tiny.pokes(count=2), tiny.frames()
    errors = {}
    for correction in (None, "gradient"):
        forecast = LatentForecast(autoencoder, planner, steps=4, correction=correction)
        errors[correction] = miss(forecast(frame, pokes, mask, pokes[..., :2], samples=3), pokes).mean()
    assert errors["gradient"] < 0.5 * errors[None]


def test_gradient_without_pokes_and_for_clips_without_pokes_changes_nothing():
    decoder, (pokes, mask) = LinearDecoder(), tiny.pokes(count=2)
    clean = torch.randn(4, *tiny.LATENT)
    assert gradient_correction(decoder, tiny.frames(), pokes, mask & False, 2)(clean) is clean
    mask[1] = False
    pokes[1] = torch.nan  # empty slots may hold anything
    corrected = gradient_correction(decoder, tiny.frames(), pokes, mask, 2)(clean)
    assert torch.equal(corrected[2:], clean[2:]) and not torch.allclose(corrected[:2], clean[:2])


def still(points):
    """A decoder (B, P, 2) -> (B, 2, P, T, 2) whose two samples both hold still."""
    return points[:, None, :, None].expand(-1, 2, -1, 64, -1)


def moving(points):
    """Likewise, but points right of the centre rise in the first sample."""
    rise = (points[..., 0] > 0).float()[:, None, :, None, None] * torch.tensor([1.0, 0.0])[:, None, None, None]
    return still(points) + rise * torch.tensor([0.0, -0.6]) * TIME


@pytest.mark.parametrize("decode", [still, moving])
@pytest.mark.parametrize("times", ["ends", "mixed", "one track"])
def test_snap_meets_every_poke_at_its_time(decode, times):
    pokes, mask = tiny.pokes(count=5, seed=3)
    if times == "ends":
        pokes[..., 4] = 1
    if times == "one track":
        pokes[..., :2] = pokes[:, :1, :2]
        pokes[..., 4] = torch.tensor([0.25, 0.5, 0.61, 0.8, 1.0])
    own = decode(pokes[..., :2])
    assert miss(own, pokes).mean() > 0.3
    assert miss(snap_to_pokes(own, decode, pokes, mask), pokes).max() < 1e-3


def test_snap_bends_a_track_piecewise_linearly_through_its_goals():
    pokes = torch.tensor([[[0.0, 0, 0.4, 0, 1 / 3], [0, 0, 0.4, 0.6, 2 / 3], [0, 0, -0.2, 0.6, 1]]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    track = snap_to_pokes(still(torch.zeros(1, 1, 2)), still, pokes, mask)[0, 0, 0]
    knots = torch.tensor([[0.0, 0], [0.4, 0], [0.4, 0.6], [-0.2, 0.6]])
    expected = torch.cat([torch.lerp(a, b, torch.arange(21)[:, None] / 21) for a, b in zip(knots, knots[1:], strict=False)])
    assert torch.allclose(track, torch.cat([expected, knots[-1:]]), atol=2e-3)


def test_snap_leaves_far_and_unlike_motion_and_the_first_frame_alone():
    pokes, mask = torch.tensor([[[0.2, 0.0, 0.5, 0.3, 1.0]]]), torch.ones(1, 1, dtype=torch.bool)
    # Near and alike; far; near but, in the first sample, moving otherwise.
    points = torch.tensor([[[0.25, 0.0], [0.9, -0.95], [-0.05, 0.0]]])
    before = moving(points)
    change = (snap_to_pokes(before, moving, pokes, mask) - before).norm(dim=-1)
    assert change[..., 0].max() < 1e-6
    assert change[:, :, 0, -1].min() > 0.3
    assert change[:, :, 1].max() < 0.01
    assert change[:, 0, 2].max() < 0.01 < 0.2 < change[:, 1, 2, -1]


def test_snap_without_pokes_is_identity_and_empty_slots_do_not_matter():
    pokes, mask = tiny.pokes(count=4)
    points = tiny.starts(2, 6)
    for some in (tiny.pokes(count=0), (pokes, mask & False)):
        assert torch.equal(snap_to_pokes(still(points), still, *some), still(points))
    mask[0, 1] = mask[1] = False
    for filling in (0.0, 7.0, torch.nan):
        filled = torch.where(mask[..., None], pokes, filling)
        moved = snap_to_pokes(still(points), still, filled, mask)
        assert torch.equal(moved[1], still(points)[1]) and not torch.allclose(moved[0], still(points)[0])
        assert torch.allclose(moved[:1], snap_to_pokes(still(points), still, pokes, mask)[:1], atol=1e-6)
    alone = snap_to_pokes(still(points[:1]), still, pokes[:1, [0, 2, 3]], mask[:1, [0, 2, 3]])
    assert torch.allclose(moved[:1], alone, atol=1e-5)


def test_bad_input_is_refused():
    pokes, mask = tiny.pokes()
    tracks = still(tiny.starts(2, 4))
    for bad in ((tracks[0], still, pokes, mask), (tracks, still, pokes[:1], mask), (tracks, still, pokes * 9, mask)):
        with pytest.raises(ShapeError):
            snap_to_pokes(*bad)
