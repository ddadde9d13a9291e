"""The poke canvas in a real JupyterLab with the shipped model: drag, keys, compare, files, and how long it takes."""

from __future__ import annotations

import json
import statistics
import struct
import time
import zlib

import pytest

DRAGS = 7

SETUP = """\
import json, os
from pathlib import Path
from kinelib.course.playground import playground
canvas = playground("scene: vehicle", seed=1)

def note(change=None):
    seen = {"pokes": canvas.pokes, "request": canvas.request, "samples": canvas.samples, "view": canvas.view}
    answer, where, field = canvas.answer_0, canvas.where_0, canvas.field_0
    seen |= {"futures": answer.get("samples"), "points": answer.get("points"), "ms": answer.get("milliseconds")}
    seen |= {"where": where.get("samples", 0), "field": field.get("points", 0), "question": canvas.question}
    seen |= {"source": canvas.source, "sources": canvas.sources, "size": canvas.picture_size, "moments": canvas.moments}
    Path("NAME.tmp").write_text(json.dumps(seen))
    os.replace("NAME.tmp", "NAME.json")

canvas.observe(note, ["answer_0", "where_0", "field_0", "samples", "pokes", "source", "view"])
"""


def setup(name):
    return SETUP.replace("NAME", name)


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


def shown(page):
    """The number of the newest answer that has been drawn."""
    return int(page.locator(".pk").get_attribute("data-shown") or -1)


def until_drawn(page, after, seconds=60):
    wait_for(lambda: shown(page) > after, seconds, "no new futures on the screen")


def drag(page, start, goal, index=0):
    """A drag from one place to another, places as shares of the picture."""
    box = page.locator("canvas.pk-canvas").nth(index).bounding_box()
    at = lambda place: (box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"])
    page.mouse.move(*at(start))
    page.mouse.down()
    page.mouse.move(*at([(a + b) / 2 for a, b in zip(start, goal, strict=True)]), steps=3)
    page.mouse.move(*at(goal), steps=3)
    page.mouse.up()


@pytest.fixture
def canvas(lab, open_page):
    """A function that opens a notebook with a canvas, runs it, and returns (page, seen): seen() is what Python saw."""

    pages = []

    def start(name, *cells, **options):
        page = open_page(**options)
        pages.append(page)
        lab.run_all(page, lab.write(f"{name}.ipynb", setup(name), *(cells or ("canvas",))))
        page.wait_for_selector("canvas.pk-canvas", timeout=120_000)
        page.locator("canvas.pk-canvas").first.scroll_into_view_if_needed()
        until_drawn(page, -1, 120)
        return page, lambda: json.loads((lab.folder / f"{name}.json").read_text())

    yield start
    for page in pages:  # a kernel with a model in it is not left behind
        page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")


def test_a_drag_brings_futures_and_python_sees_the_poke(canvas, lab, artefacts):
    page, seen = canvas("drag", height=1000)
    elsewhere = []
    page.on("request", lambda request: request.url.startswith(lab.address) or elsewhere.append(request.url))
    # Where the hand let go, to first futures on the screen.
    hand, model = [], []
    for turn in range(DRAGS):
        before = shown(page)
        drag(page, (0.27 + 0.01 * turn, 0.28 + 0.01 * turn), (0.6, 0.3 + 0.02 * turn))
        until_drawn(page, before)
        hand.append(float(page.locator(".pk").get_attribute("data-latency")))
        model.append(wait_for(lambda: seen()["request"] >= shown(page) and seen()["ms"]))
        if turn < DRAGS - 1:
            page.get_by_role("button", name="Remove all pokes").click()
            wait_for(lambda: not seen()["pokes"] and shown(page) >= seen()["request"])
    facts = wait_for(lambda: len(seen()["pokes"]) == 1 and seen())
    assert facts["pokes"][0] == pytest.approx([2 * 0.33 - 1, 2 * 0.34 - 1, 2 * 0.6 - 1, 2 * 0.42 - 1, 1.0], abs=0.02)
    assert facts["futures"] == 8 and facts["points"] == 145
    page.wait_for_timeout(1300)
    page.locator(".pk").screenshot(path=artefacts / "lab-futures.png")
    measured = {
        "mouse_up_to_first_futures_ms": round(statistics.median(hand)),
        "of_which_sampling_ms": round(statistics.median(model)),
        "drags": len(hand),
        "all_ms": [round(value) for value in hand],
        "samples": 8,
    }
    (artefacts / "latency.json").write_text(json.dumps(measured, indent=2) + "\n")
    # What is not the model's: the way there and back, packing, drawing. The sum is a matter of the machine.
    around = statistics.median(a - b for a, b in zip(hand, model, strict=True))
    assert around < 1000, measured
    assert not elsewhere, elsewhere[:3]


def test_keys_views_and_sliders(canvas, artefacts):
    page, seen = canvas("keys", height=1000)
    page.locator("canvas.pk-canvas").focus()
    for key in (
        "ArrowRight",
        "ArrowLeft",
        "Shift+ArrowLeft",
        "Enter",
        "Shift+ArrowRight",
        "Shift+ArrowRight",
        "ArrowUp",
        "Enter",
    ):
        page.keyboard.press(key)
    (poke,) = wait_for(lambda: seen()["pokes"])
    assert poke == pytest.approx([-0.2, 0.0, 0.12, -0.04, 1.0], abs=1e-3)
    page.keyboard.press("n")
    page.keyboard.press("Delete")
    wait_for(lambda: seen()["pokes"] == [], why="Delete did not remove the selected poke")
    page.keyboard.press("Control+z")
    wait_for(lambda: len(seen()["pokes"]) == 1, why="Ctrl+Z did not bring it back")
    assert page.locator(".jp-Notebook .jp-Cell").count() == 2, "the notebook took a key that was ours"

    page.locator(".pk input[aria-label='futures K']").fill("3")
    page.locator(".pk input[aria-label='futures K']").dispatch_event("change")
    wait_for(lambda: seen()["samples"] == 3 and seen()["futures"] == 3)
    page.get_by_role("radio", name="Field").click()
    wait_for(lambda: seen()["field"] == 1024, why="no dense field")
    page.get_by_role("button", name="Pause").or_(page.get_by_role("button", name="Play")).click()
    page.locator(".pk-scrub").fill("0.8")
    page.locator(".pk").screenshot(path=artefacts / "lab-field.png")

    page.get_by_role("radio", name="Where?").click()
    box = page.locator("canvas.pk-canvas").bounding_box()
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 0.32 * box["height"])
    wait_for(lambda: seen()["where"] == 48, 120, "no distribution")
    assert seen()["question"] == pytest.approx([-0.4, -0.36], abs=0.03) and len(seen()["pokes"]) == 1
    page.locator(".pk-scrub").fill("0.9")
    page.wait_for_timeout(200)
    page.locator(".pk").screenshot(path=artefacts / "lab-where.png")


def test_two_settings_on_the_same_pokes(canvas, artefacts):
    cell = 'pair = playground("scene: arm", against={"guidance": 3.0}, samples=4)\n'
    cell += "pair.poke((-0.15, -0.05), (0.35, -0.05))\npair"
    page, _ = canvas("compare", cell, height=1050)
    assert page.locator("canvas.pk-canvas").count() == 2
    assert page.locator(".pk-caption").all_inner_texts() == ["zipmo", "guidance 3.0"]
    before = shown(page)
    drag(page, (0.5, 0.82), (0.5, 0.82), index=1)
    until_drawn(page, before)
    wait_for(
        lambda: " and " in page.locator(".pk-status").inner_text() and "…" not in page.locator(".pk-status").inner_text()
    )
    page.locator(".pk-scrub").fill("1")
    page.locator(".pk").screenshot(path=artefacts / "lab-compare.png")


def test_uploads_and_downloads(canvas, artefacts, tmp_path):
    page, seen = canvas("files", height=1000)
    chooser = page.locator(".pk input[type=file]")
    chooser.set_input_files({"name": "notes.png", "mimeType": "image/png", "buffer": b"these are words"})
    page.get_by_role("alert").filter(has_text="notes.png is damaged").wait_for()
    chooser.set_input_files({"name": "blue.png", "mimeType": "image/png", "buffer": blue_png(90, 60)})
    wait_for(lambda: seen()["source"] == "blue.png" and seen()["size"] == [90, 60])
    wait_for(lambda: page.locator("select[aria-label=Picture]").input_value() == "blue.png")
    page.locator("select[aria-label=Picture]").select_option("video: cup")
    wait_for(lambda: seen()["source"] == "video: cup" and seen()["moments"] > 10 and seen()["futures"])
    before = shown(page)
    drag(page, (0.5, 0.5), (0.6, 0.3))
    until_drawn(page, before)
    for kind in ("mp4", "npz"):
        with page.expect_download() as caught:
            page.get_by_role("button", name=f"Download as {kind}").click()
        kept = tmp_path / f"futures.{kind}"
        caught.value.save_as(kept)
        assert caught.value.suggested_filename == f"futures.{kind}" and kept.stat().st_size > 5000
    page.wait_for_timeout(800)
    page.locator(".pk").screenshot(path=artefacts / "lab-video.png")


def blue_png(width, height):
    """A PNG made by hand: one blue."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + b"\x20\x40\xd0" * width) * height
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
