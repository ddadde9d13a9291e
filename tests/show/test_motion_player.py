"""The motion player from Python: what goes to the page and comes back, bad input, snapshots, the page, what is saved."""

from __future__ import annotations

import base64
import json
import re
import time

import cv2
import numpy as np
import pytest
import torch
from walks import walk

from kinelib.bodies.motion import Motion
from kinelib.bodies.skeletons import SOMA30
from kinelib.show.modules import STATIC, bundle_modules
from kinelib.show.motion_data import pack_scene, unpack_scene
from kinelib.show.motion_player import LARGEST, MotionPlayer
from kinelib.show.stick_figures import figure_of


@pytest.fixture(scope="module")
def pair():
    return [walk(2.0, turn=0.8), walk(1.5, fps=30.0, speed=0.0, wave=True)]


def standing(skeleton, frames=4):
    """A body that does nothing."""
    return Motion(torch.eye(3).expand(frames, len(skeleton), 3, 3), skeleton.rest()[:1].expand(frames, 3), 20.0, skeleton)


# ---- what goes to the page


@pytest.mark.parametrize("away", [(0.0, 0.0), (150.0, -90.0)])
def test_positions_survive_the_way_to_the_page(pair, away):
    moved = [motion.translated(away) for motion in pair]
    scene = pack_scene(moved, ["a", "b"])
    for motion, facts, (points, contacts) in zip(moved, scene["samples"], unpack_scene(scene), strict=True):
        true = figure_of(motion.skeleton).points(motion)
        assert np.abs(points - true).max() < 1e-3, "a millimetre, however far from the origin"
        np.testing.assert_array_equal(contacts, motion.contacts.numpy())
        assert facts["start"] % 4 == 0 and (facts["frames"], facts["fps"]) == (len(motion), motion.fps)
    assert len(scene["data"]) < 1.1 * sum(len(motion) * 29 * 6 for motion in moved) + 60 * sum(map(len, moved))


def test_motions_of_any_skeleton_and_without_contacts_go_together(pair):
    scene = pack_scene([pair[0], standing(SOMA30)], ["walks", "stands"])
    (_, known), (points, unknown) = unpack_scene(scene)
    assert known is not None and unknown is None and points.shape[0] == 4
    assert scene["samples"][1]["joints"] == 30


def test_several_stand_side_by_side_across_their_way():
    walks = [walk(2.0), walk(2.0), walk(2.0)]
    scene = pack_scene(walks, ["", "", ""])
    offsets = np.array([facts["offset"] for facts in scene["samples"]])
    np.testing.assert_allclose(offsets.sum(0), 0, atol=1e-3)
    gaps = np.diff(offsets, axis=0)
    assert (np.abs(gaps[:, 0]) > 1.2).all() and (np.abs(gaps[:, 1]) < 0.05).all(), "they walk along +z"
    assert pack_scene([walks[0]], [""])["samples"][0]["offset"] == [0, 0]


def test_labels_are_names_prompts_or_given(pair):
    labels = lambda player: [facts["label"] for facts in player.scene["samples"]]
    assert labels(MotionPlayer({"one": pair[0], "two": pair[1]})) == ["one", "two"]
    assert labels(MotionPlayer(pair[0].with_facts(prompt="A person walks."))) == ["A person walks."]
    assert labels(MotionPlayer(pair, labels=["x", "y"])) == ["x", "y"]
    assert MotionPlayer(pair).colour == "samples" and MotionPlayer(pair[0]).colour == "sides"


@pytest.mark.parametrize(
    ("motions", "options", "kind", "words"),
    [
        ([], {}, ValueError, "1 to 16"),
        (["walk.npz"], {}, TypeError, "motion 0 is a str"),
        (None, dict(labels=["a"]), ValueError, "1 labels for 2 motions"),
        (None, dict(speed=2), ValueError, "speed"),
        (None, dict(targets=[{"x": 1}]), ValueError, "a target is"),
        (None, dict(targets=[{"points": [[1, 2, 3]]}]), ValueError, "a target is"),
        (None, dict(targets=[{"x": float("nan"), "z": 0}]), ValueError, "NaN"),
    ],
)
def test_what_cannot_be_shown_is_refused(pair, motions, options, kind, words):
    with pytest.raises(kind, match=words):
        MotionPlayer(pair if motions is None else motions, **options)


def test_frames_stay_within_the_longest_motion(pair):
    player = MotionPlayer(pair)
    assert player.fps == 30 and player.frames == 1 + round(1.95 * 30)
    player.frame = 10**6
    assert player.frame == player.frames - 1
    player.frame, player.focus = -5, 9
    assert (player.frame, player.focus) == (0, -1)
    player.show(pair[0], targets=[{"x": 0.0, "z": 1.0}])
    assert player.frames == 40 and player.fps == 20 and player.targets == [{"x": 0.0, "z": 1.0}]
    with pytest.raises(TypeError):
        player.show("no motion")
    assert player.motions == [pair[0]], "what was refused is not shown"


# ---- pictures and pages


def test_snapshots_show_the_moment(pair):
    player = MotionPlayer(pair, labels=["walks", "waves"])
    first = player.snapshot(360, poses=0)
    assert first.shape == (225, 360, 3) and first.std() > 15
    player.frame = 40
    assert np.abs(player.snapshot(360, poses=0).astype(int) - first).mean() > 1
    with_rows = player.snapshot(360, poses=4)
    assert with_rows.shape[0] > first.shape[0] + 150
    player.focus = 0
    assert player.snapshot(360, poses=4).shape[0] < with_rows.shape[0]
    player.distance = 2.0
    near = player.snapshot(360, poses=0)
    player.distance = 20.0
    paper = lambda image: (np.abs(image.astype(int) - (247, 249, 252)).max(-1) < 12).mean()
    assert paper(player.snapshot(360, poses=0)) > paper(near)


def test_an_executed_notebook_keeps_a_picture(pair, monkeypatch):
    monkeypatch.delenv("KINELIB_HEADLESS", raising=False)
    data, _ = MotionPlayer(pair)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data["image/png"]), np.uint8), 1)
    assert image.shape[1] == 720 and image.std() > 15
    monkeypatch.setenv("KINELIB_HEADLESS", "1")
    unseen = MotionPlayer(pair)
    assert unseen.comm is None and unseen._repr_mimebundle_()[0].keys() == {"text/plain", "image/png"}


def test_the_page_is_whole_small_and_asks_nobody(pair, tmp_path):
    player = MotionPlayer(pair, labels=["</script>", "b"], targets=[{"x": 1, "z": 2}])
    path = player.to_html(tmp_path / "page.html", title="Walks </title>")
    text = path.read_text()
    assert path.stat().st_size < LARGEST and "&lt;/title&gt;" in text and text.count("</script>") == 2
    assert not re.search(r"""(src|href)=["'](?!data:)|https?://|@import|\bfetch\(|\bimport\(""", text)
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])
    assert base64.b64decode(facts["scene"]["data"]) == player.scene["data"] and facts["targets"] == [{"x": 1.0, "z": 2.0}]
    ten_seconds = MotionPlayer([walk(10.0)] * 4).to_html(tmp_path / "four.html")
    assert ten_seconds.stat().st_size < 600_000


def test_pages_that_would_be_too_large_are_not_written(tmp_path):
    path = tmp_path / "long.html"
    player = MotionPlayer([walk(60.0, fps=60.0)] * 3)
    with pytest.raises(ValueError, match="fewer motions or shorter"):
        player.to_html(path)
    with pytest.raises(ValueError, match=r"\.html"):
        player.to_html(tmp_path / "page.htm")
    assert not list(tmp_path.iterdir())


def test_everything_offered_can_be_saved(pair, tmp_path):
    from kinelib.bodies.motion_files import load_motion

    player = MotionPlayer([motion.slice(0, 12) for motion in pair])
    with pytest.raises(ValueError, match="choose one first"):
        player.save(tmp_path / "walk.npz")
    player.focus = 0
    for kind in player.formats:
        assert player.save(tmp_path / f"walk.{kind}").stat().st_size > 500
    again = load_motion(tmp_path / "walk.npz")
    torch.testing.assert_close(again.positions(), pair[0].slice(0, 12).positions(), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match=r"\.npz"):
        player.save(tmp_path / "walk.doc")


def test_the_page_is_sent_the_files_it_asks_for(pair):
    player, sent = MotionPlayer(pair), []
    player.send = lambda content, buffers=None: sent.append((content, buffers))
    player._handle_custom_msg({"kind": "save", "format": "png"}, [])
    player._handle_custom_msg({"kind": "save", "format": "exe"}, [])
    ends = time.monotonic() + 20
    while not sent and time.monotonic() < ends:
        player._collect(0.1)
    ((content, (data,)),) = sent
    assert content == {"kind": "file", "name": "motion.png", "type": "image/png"} and data.startswith(b"\x89PNG")
    player._handle_custom_msg({"kind": "save", "format": "bvh"}, [])
    while not player.error and time.monotonic() < ends:
        player._collect(0.1)
    assert "choose one first" in player.error


def test_our_modules_fit_together():
    for entry in ("motion_player.js", "motion_page.js", "timeline.js"):
        bundle = bundle_modules(entry)
        assert not re.search(r"^import\b", bundle, re.MULTILINE) and "class MotionView" in bundle
    for path in STATIC.glob("*.js"):
        assert path.read_text().startswith("/**"), path.name
