"""Pictures in other light and points under a drawn camera: what stays as it is, what changes, and by how much."""

import pytest
import torch

from kinelib.notation import cell_centres
from kinelib.zipmo.augment import camera_tracks, filmed_tracks, other_light


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_other_light_keeps_what_is_seen_and_changes_how():
    frames = torch.rand(64, 3, 16, 16, generator=seeded()) * 1.6 - 0.8
    lit = other_light(frames, seeded(1), share=1.0)
    assert lit.shape == frames.shape and lit.abs().max() <= 1 and lit.isfinite().all()
    assert (lit - frames).abs().mean(dim=(1, 2, 3)).min() > 0.02
    grey, before = lit.mean(dim=1).flatten(1), frames.mean(dim=1).flatten(1)
    correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(grey, before, strict=True)])
    assert correlation.min() > 0.8


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_other_light_leaves_the_rest_alone(share):
    frames = torch.rand(200, 3, 4, 4, generator=seeded()) * 2 - 1
    lit = other_light(frames, seeded(1), share)
    same = (lit == frames).flatten(1).all(dim=1).float().mean()
    assert abs(float(same) - (1 - share)) < 0.12
    assert torch.equal(lit, other_light(frames, seeded(1), share))


def test_a_drawn_camera_starts_where_points_are_and_moves_neighbours_alike():
    points = cell_centres(20, 20)[None].expand(32, -1, -1)
    tracks = camera_tracks(points, 64, seeded())
    assert tracks.shape == (32, 400, 64, 2) and tracks.dtype == torch.float32
    assert torch.allclose(tracks[:, :, 0], points, atol=1e-6)
    moved = (tracks - tracks[:, :, :1]).norm(dim=-1).amax(dim=(1, 2))
    assert moved.median() > 0.3 and moved.min() > 0.01  # of half the width
    # Smooth in space: neighbours a twentieth of the frame apart part by much less than they move. Smooth in time.
    grid = (tracks - tracks[:, :, :1]).unflatten(1, (20, 20))
    apart = (grid[:, :, 1:] - grid[:, :, :-1]).norm(dim=-1).amax(dim=(1, 2, 3))
    assert (apart / moved).median() < 0.2
    assert (tracks.diff(dim=2).norm(dim=-1).amax(dim=(1, 2)) / moved).median() < 0.15


def test_a_share_of_the_clips_is_filmed_by_a_drawn_camera():
    tracks = torch.full((300, 5, 8, 2), 7.0)
    filmed = filmed_tracks(tracks, seeded(), share=0.4)
    old = (filmed == 7).flatten(1).all(dim=1)
    assert 0.5 < float(old.float().mean()) < 0.7
    assert filmed[~old][:, :, 0].abs().max() <= 0.95  # starts inside the frame
    assert torch.equal(filmed_tracks(tracks, seeded(), share=0.0), tracks)
