"""The motion player from disk with every request refused, and the authoring widget in a real JupyterLab."""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "show"))
from walks import walk

from kinelib.show.modules import bundle_modules
from kinelib.show.motion_data import pack_scene
from kinelib.show.motion_player import MotionPlayer
from kinelib.show.stick_figures import Eye, figure_of


def wait_for(condition, seconds=60, why="nothing happened"):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            value = condition()
        except (FileNotFoundError, KeyError, TypeError):
            value = None
        if value:
            return value
        time.sleep(0.05)
    return pytest.fail(f"{why} within {seconds} s")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    motions = [walk(4.0, turn=0.8), walk(3.0, speed=0.0, wave=True), walk(4.0, speed=1.5, turn=-0.5)]
    labels = ["A person walks and turns left", "waves", "walks fast"]
    player = MotionPlayer(motions, labels=labels, targets=[{"x": 0.5, "z": 2.0, "heading": 0.4, "at": 2.0}])
    return player.to_html(tmp_path_factory.mktemp("pages") / "walks.html", title="Walks & waves")


@pytest.fixture
def opened(page_file, open_page):
    """A function that opens the page from disk, every request but the file itself refused and written down."""

    def start(**options):
        page, refused = open_page(**options), []

        def judge(route):
            if route.request.url.startswith("file://"):
                return route.continue_()
            refused.append(route.request.url)
            return route.abort()

        page.route("**/*", judge)
        page.goto(page_file.as_uri())
        page.wait_for_selector(".mp[data-drawn]")
        return page, refused

    return start


def picture(page):
    """The bytes of what the canvas shows, once nothing moves."""
    page.wait_for_timeout(250)
    return page.evaluate("() => document.querySelector('canvas.mp-canvas').toDataURL()")


def pause(page):
    if page.get_by_role("button", name="Pause").count():
        page.get_by_role("button", name="Pause").click()
    page.locator(".pk-scrub").fill("0.5")


def drag(page, start, goal, **keys):
    box = page.locator("canvas.mp-canvas").first.bounding_box()
    at = lambda place: (box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"])
    page.mouse.move(*at(start))
    page.mouse.down(**keys)
    page.mouse.move(*at(goal), steps=5)
    page.mouse.up(**keys)


def test_the_page_plays_from_disk_without_any_request(opened, artefacts):
    page, refused = opened()
    assert page.title() == "Walks & waves"
    drawn = lambda: int(page.locator(".mp").get_attribute("data-drawn"))
    before = drawn()
    wait_for(lambda: drawn() > before + 10, 20, "it does not play")
    costs = [float(page.locator(".mp").get_attribute("data-cost")) for _ in range(20) if not page.wait_for_timeout(40)]
    # The least of many: what is measured is the drawing, not a busy machine.
    assert min(costs) < 33, f"{min(costs)} ms a picture: less than 30 pictures a second"
    pause(page)
    page.screenshot(path=artefacts / "motion-player.png", full_page=True)
    (artefacts / "motion-player.json").write_text(json.dumps({"draw_ms_3_bodies": min(costs)}) + "\n")
    assert refused == []


def test_hands_turn_move_and_zoom(opened):
    page, _ = opened()
    pause(page)
    first = picture(page)
    drag(page, (0.5, 0.5), (0.7, 0.45))
    turned = picture(page)
    drag(page, (0.5, 0.5), (0.6, 0.6), button="right")
    moved = picture(page)
    page.mouse.wheel(0, -240)
    zoomed = picture(page)
    assert len({first, turned, moved, zoomed}) == 4
    page.get_by_role("button", name="The view as it was at first").click()
    assert picture(page) == first
    looks = {picture(page)}
    for name in ("front", "side", "top"):
        page.get_by_role("button", name=f"Look from: {name}").click()
        looks.add(picture(page))
    assert len(looks) == 4


def test_keys_chips_and_switches(opened):
    page, _ = opened()
    pause(page)
    canvas = page.locator("canvas.mp-canvas")
    canvas.focus()
    frame = lambda: int(page.locator(".mp").get_attribute("data-frame"))
    page.keyboard.press("Home")
    wait_for(lambda: frame() == 0)
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
    wait_for(lambda: frame() == 11, 5, f"frame {frame()}")
    assert "frame 11" in page.locator(".pk-scrub").get_attribute("aria-valuetext")
    page.keyboard.press("End")
    wait_for(lambda: frame() == 79)
    everything = picture(page)
    page.keyboard.press("2")
    assert page.get_by_role("radio", name="Only motion 2 waves").get_attribute("aria-checked") == "true"
    assert picture(page) != everything
    page.get_by_role("radio", name="All motions").click()
    assert picture(page) == everything
    for name in (
        "Names above the heads",
        "Side by side, or all in one place",
        "Colour left and right limbs, or each sample",
    ):
        page.get_by_role("button", name=name).click()
        changed = picture(page)
        assert changed != everything
        everything = changed
    canvas.focus()
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("+")
    assert picture(page) != everything
    page.keyboard.press(" ")
    wait_for(lambda: 0 < frame() < 79, 10, "Space does not play")
    unnamed = page.eval_on_selector_all(
        ".pk button, .pk input, .pk select, .pk canvas",
        "all => all.filter(e => !e.getAttribute('aria-label') && !e.textContent.trim()).map(e => e.outerHTML)",
    )
    assert unnamed == []


def test_fingers_on_a_narrow_dark_screen(opened, artefacts):
    phone = dict(width=390, height=844, has_touch=True, is_mobile=True, device_scale_factor=2, color_scheme="dark")
    page, refused = opened(**phone)
    pause(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), "wider than the screen"
    before = picture(page)
    box = page.locator("canvas.mp-canvas").bounding_box()
    touch = page.context.new_cdp_session(page)
    point = lambda x, y, number: {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": number}
    send = lambda kind, *points: touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})
    send("touchStart", point(0.4, 0.5, 0))
    send("touchMove", point(0.6, 0.5, 0))
    send("touchEnd")
    turned = picture(page)
    send("touchStart", point(0.4, 0.5, 0), point(0.6, 0.5, 1))
    send("touchMove", point(0.2, 0.5, 0), point(0.8, 0.5, 1))
    send("touchEnd")
    assert len({before, turned, picture(page)}) == 3
    page.screenshot(path=artefacts / "motion-player-narrow.png", full_page=True)
    assert refused == []


def test_the_browser_reads_what_python_packed(open_page):
    motions = [walk(1.0, turn=0.8).translated((40.0, -7.0)), walk(0.5, fps=30.0, wave=True)]
    scene = pack_scene(motions, ["a", "b"])
    facts = {"samples": scene["samples"], "data": base64.b64encode(scene["data"]).decode()}
    page = open_page()
    script = bundle_modules("body_clips.js").replace("export ", "") + bundle_modules("body_eye.js").replace("export ", "")
    page.set_content(f"<script>{script}; window.given = {json.dumps(facts)};</script>")
    seen = page.evaluate(
        """() => {
          const data = Uint8Array.from(atob(given.data), (letter) => letter.charCodeAt(0));
          const clips = unpackClips({ ...given, data });
          const eye = new Eye({ target: [0.2, 0.9, 0.1], azimuth: 0.7, elevation: 0.3, distance: 4 });
          const lens = eye.lens(300, 200);
          eye.fit([0, 0, 0, 1, 2, 0.5, -0.4, 1, 1], 1.5, 0.1);
          return {
            frames: clips.list.map((clip) => [0, 3, clip.frames - 1].map((frame) => [...clip.at(frame / clip.fps)])),
            between: [...clips.list[0].at(3.5 / 20)],
            standing: clips.list.map((clip) => [...clip.standing(0.2)]),
            seen: [...lens.look(0.5, 1.2, -0.3)],
            fitted: [...eye.target, eye.distance],
          };
        }"""
    )
    for motion, frames, standing in zip(motions, seen["frames"], seen["standing"], strict=True):
        points = figure_of(motion.skeleton).points(motion)
        for number, flat in zip((0, 3, len(motion) - 1), frames, strict=True):
            np.testing.assert_allclose(np.reshape(flat, (-1, 3)), points[number], atol=1e-3)
        np.testing.assert_array_equal(np.array(standing) / 255, motion.contacts[round(0.2 * motion.fps)].numpy())
    points = figure_of(motions[0].skeleton).points(motions[0])
    np.testing.assert_allclose(np.reshape(seen["between"], (-1, 3)), (points[3] + points[4]) / 2, atol=1e-3)
    # The eye of the page and that of Python are one.
    places, nearness, scale = Eye((0.2, 0.9, 0.1), 0.7, 0.3, 4.0).see(np.array([0.5, 1.2, -0.3]))
    wanted = [150 + 200 * places[0], 100 - 200 * places[1], nearness, 200 * scale]
    np.testing.assert_allclose(seen["seen"], wanted, rtol=1e-9)
    cloud = np.array([[0, 0, 0], [1, 2, 0.5], [-0.4, 1, 1]])
    fitted = Eye(azimuth=0.7, elevation=0.3).fitted(cloud, 1.5, 0.1)
    np.testing.assert_allclose(seen["fitted"], [*fitted.target, fitted.distance], rtol=1e-6)


# ---- the authoring widget

SETUP = f"""\
import json, os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).resolve().parents[1] / "show")!r})
from walks import walk
from kinelib.show.timeline import MotionAuthor

def generate(prompts, seconds, constraints, *, samples, seed, watch):
    watch(1, 2)
    if "fall" in " ".join(prompts):
        raise ValueError("this model cannot fall")
    return [walk(sum(seconds), turn=0.5 - 0.6 * k, wave=k == 1) for k in range(samples)]

author = MotionAuthor(generate, {{"a walk": walk(3.0, turn=0.6), "a wave": walk(2.0, speed=0.0, wave=True)}}, samples=2)
author.prompt("A person walks forward and turns left.", 4.0)

def note(change=None):
    seen = {{"script": author.script, "error": author.error, "frame": author.frame, "samples": len(author.scene["samples"])}}
    seen |= {{"generated": author._result is not None, "frames": author.scene["samples"][0]["frames"]}}
    Path("author.tmp").write_text(json.dumps(seen))
    os.replace("author.tmp", "author.json")

author.observe(note, ["script", "error", "scene", "frame", "busy"])
note()
"""


@pytest.fixture
def written(lab, open_page):
    """The widget in a notebook: (page, seen), seen() being what Python has."""
    page = open_page(width=1300, height=1400)
    lab.run_all(page, lab.write("author.ipynb", SETUP, "author"))
    page.wait_for_selector(".tl-lanes", timeout=150_000)
    page.locator(".tl-lanes").scroll_into_view_if_needed()
    yield page, lambda: json.loads((lab.folder / "author.json").read_text())
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")


def test_a_motion_is_written_by_hand(written, artefacts):
    page, seen = written
    script = lambda: seen()["script"]
    # A second prompt, its words, and its length by its edge.
    page.get_by_role("button", name="Add a prompt at the end").click()
    wait_for(lambda: len(script()["prompts"]) == 2)
    words = page.get_by_role("textbox", name="Prompt 2")
    words.fill("A person waves with the left hand.")
    words.press("Tab")
    wait_for(lambda: script()["prompts"][1]["text"] == "A person waves with the left hand.")
    # On a busy machine the answer may still be drawn: until then there is nothing to take hold of.
    edge = wait_for(page.locator(".tl-segment").nth(1).locator(".tl-edge").bounding_box)
    lane = wait_for(page.locator(".tl-prompts").bounding_box)
    page.mouse.move(edge["x"] + 5, edge["y"] + 10)
    page.mouse.down()
    page.mouse.move(edge["x"] + 5 - lane["width"] / 8, edge["y"] + 10, steps=4)
    page.mouse.up()
    wait_for(lambda: abs(script()["prompts"][1]["seconds"] - 3.0) < 0.15, why="the edge does not change the length")
    page.locator(".tl-segment").nth(1).focus()
    page.keyboard.press("Shift+ArrowRight")
    wait_for(lambda: abs(script()["prompts"][1]["seconds"] - 3.5) < 0.15)
    # Waypoints and a path on the floor.
    floor = page.locator("canvas.tl-plan")
    floor.scroll_into_view_if_needed()
    box = floor.bounding_box()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.45 * box["height"])
    wait_for(lambda: len(script()["waypoints"]) == 1)
    page.get_by_role("button", name="Ask for a heading too").click()
    wait_for(lambda: script()["waypoints"][0]["heading"] == 0)
    floor.focus()
    before = script()["waypoints"][0]["x"]
    page.keyboard.press("ArrowLeft")
    wait_for(lambda: script()["waypoints"][0]["x"] == pytest.approx(before + 0.1), why="left is not +x")
    page.get_by_role("radio", name="Draw a path").click()
    page.mouse.move(box["x"] + 0.85 * box["width"], box["y"] + 0.9 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.8 * box["height"], steps=8)
    page.mouse.up()
    wait_for(lambda: len(script()["paths"]) == 1 and len(script()["paths"][0]["points"]) > 4)
    assert script()["paths"][0]["points"][-1][0] > script()["paths"][0]["points"][0][0]
    # A key on a lane, moved with the keys, taken back and made again.
    page.locator(".tl-lane[data-lane=left_hand]").click(position={"x": 300, "y": 10})
    wait_for(lambda: [key["part"] for key in script()["keys"]] == ["left_hand"])
    at = script()["keys"][0]["at"]
    page.locator("[data-item=keys-0]").focus()
    page.keyboard.press("ArrowRight")
    wait_for(lambda: script()["keys"][0]["at"] == pytest.approx(at + 0.05))
    page.keyboard.press("Control+z")
    wait_for(lambda: script()["keys"][0]["at"] == pytest.approx(at), why="Ctrl+Z does nothing")
    page.keyboard.press("Control+y")
    wait_for(lambda: script()["keys"][0]["at"] == pytest.approx(at + 0.05))
    page.locator("[data-item=keys-0]").focus()
    page.keyboard.press("Delete")
    wait_for(lambda: not script()["keys"])
    page.get_by_role("button", name="Add this full body at the playhead").click()
    wait_for(lambda: [key["part"] for key in script()["keys"]] == ["full_body"])
    assert page.locator(".jp-Notebook .jp-Cell").count() == 2, "the notebook took a key that was ours"
    # What comes of it.
    page.get_by_role("button", name="Make motion of all this").click()
    wait_for(lambda: seen()["generated"] and seen()["samples"] == 2, 90, "nothing was generated")
    page.get_by_role("button", name="Pause").click()
    page.locator(".mp .pk-scrub").fill("0.5")
    wait_for(lambda: seen()["frame"] > 20, why="Python does not hear of the frame")
    page.locator(".tl").screenshot(path=artefacts / "lab-author.png")
    # And what a model complains of.
    page.locator(".tl-segment").first.click()
    words = page.get_by_role("textbox", name="Prompt 1")
    words.fill("A person falls.")
    words.press("Tab")
    wait_for(lambda: script()["prompts"][0]["text"] == "A person falls.")
    page.get_by_role("button", name="Make motion of all this").click()
    page.get_by_role("alert").filter(has_text="this model cannot fall").wait_for()
