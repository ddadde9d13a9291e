"""The offline page: opened from disk with every request refused; mouse, finger, keys, narrow screens."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "show"))
from pokes import forecast, picture

from kinelib.learning.image import to_model_frame
from kinelib.show.standalone import write_page


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    image = picture(240, 320)
    path = tmp_path_factory.mktemp("pages") / "pokes.html"
    return write_page(path, image, to_model_frame(image[None], 64), forecast, starts=5, title="A page & its pokes")


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
        page.wait_for_selector(".pk[data-shown]")
        return page, refused

    return start


def place(page, x, y):
    """Pixels on the screen of xy in [-1, 1]."""
    box = page.locator("canvas.pk-canvas").bounding_box()
    return box["x"] + (x + 1) / 2 * box["width"], box["y"] + (y + 1) / 2 * box["height"]


def paint(page):
    """How many pixels of the canvas have a sample's colour: the futures that are drawn."""
    return page.evaluate(
        """() => {
          const canvas = document.querySelector("canvas.pk-canvas");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let i = 0; i < data.length; i += 4) {
            const [r, g, b] = [data[i], data[i + 1], data[i + 2]];
            const near = (R, G, B) => Math.abs(r - R) + Math.abs(g - G) + Math.abs(b - B) < 30;
            if (near(86, 180, 233) || near(230, 159, 0) || near(204, 121, 167) || near(0, 158, 115)) count++;
          }
          return count;
        }"""
    )


def drag(page, start, goal):
    page.mouse.move(*place(page, *start))
    page.mouse.down()
    page.mouse.move(*place(page, *goal), steps=4)
    page.mouse.up()


def test_a_drag_shows_the_nearest_futures_without_any_request(opened, artefacts, page_file):
    page, refused = opened()
    assert page.title() == "A page & its pokes" and page_file.stat().st_size < 2_000_000
    before = paint(page)
    drag(page, (0.0, 0.0), (0.6, -0.2))
    page.wait_for_function("() => document.querySelector('.pk').dataset.shown === '1'")
    page.wait_for_timeout(1500)
    assert paint(page) > before + 300
    assert "nearest stored poke" in page.locator(".pk-status").inner_text()
    assert float(page.locator(".pk").get_attribute("data-latency")) < 1500
    page.screenshot(path=artefacts / "standalone.png", full_page=True)
    # One poke at a time is stored, so another one takes its place; undo brings the first one back, clear empties.
    drag(page, (-0.4, 0.4), (-0.4, -0.2))
    page.get_by_role("button", name="Undo").click()
    assert page.get_by_role("button", name="Redo").is_enabled()
    page.get_by_role("button", name="Remove all pokes").click()
    assert page.get_by_role("button", name="Remove all pokes").is_disabled()
    page.wait_for_timeout(300)
    assert paint(page) <= before + 5
    assert refused == []


def test_the_player_pauses_scrubs_and_looks_at_one_sample(opened):
    page, _ = opened()
    drag(page, (0.0, 0.0), (0.5, 0.3))
    page.get_by_role("button", name="Pause").click()
    page.locator(".pk-scrub").fill("1")
    page.wait_for_timeout(500)
    everything = paint(page)
    page.get_by_role("radio", name="Only sample 2").click()
    page.wait_for_timeout(200)
    assert 30 < paint(page) < 0.7 * everything
    assert page.locator(".pk-clock").inner_text() == "t 1.00"
    still = page.locator(".pk-scrub").input_value()
    page.wait_for_timeout(300)
    assert page.locator(".pk-scrub").input_value() == still
    page.get_by_label("Speed").select_option("2")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => Number(document.querySelector('.pk-scrub').value) < 0.9")
    page.get_by_role("radio", name="Field").click()
    page.wait_for_timeout(200)
    assert page.get_by_role("radio", name="Field").get_attribute("aria-checked") == "true"


def test_a_finger_on_a_narrow_screen(opened, artefacts):
    page, refused = opened(width=390, height=844, has_touch=True, is_mobile=True, device_scale_factor=2)
    touch = page.context.new_cdp_session(page)
    send = lambda kind, at: touch.send(
        "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": at[0], "y": at[1]}] if at else []}
    )
    top = page.evaluate("() => window.scrollY")
    send("touchStart", place(page, 0.1, 0.3))
    for y in (0.1, -0.1, -0.4):
        send("touchMove", place(page, 0.1, y))
    send("touchEnd", None)
    page.wait_for_function("() => document.querySelector('.pk').dataset.shown === '1'")
    assert page.evaluate("() => window.scrollY") == top, "the page scrolled under the finger"
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), "wider than the screen"
    heights = page.eval_on_selector_all(".pk button", "all => all.filter(b => b.offsetParent).map(b => b.offsetHeight)")
    assert min(heights) >= 36, "too small for a finger"
    page.wait_for_timeout(900)
    page.screenshot(path=artefacts / "standalone-narrow.png", full_page=True)
    page.touchscreen.tap(*place(page, -0.6, -0.6))
    page.wait_for_function("() => document.querySelector('.pk').dataset.shown === '2'")
    assert "hold still at -0.60, -0.60" in page.locator("[aria-live]").inner_text()
    assert refused == []


def test_keys_alone_make_change_and_undo_a_poke(opened):
    page, _ = opened()
    page.locator("canvas.pk-canvas").focus()
    for key in ("ArrowUp", "Enter", "Shift+ArrowRight", "Shift+ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("() => document.querySelector('.pk').dataset.shown === '1'")
    assert "poke from 0.00, 0.00 to 0.32, 0.00" in page.locator("[aria-live]").inner_text()
    page.keyboard.press("Control+z")
    page.wait_for_function("() => document.querySelector('.pk').dataset.shown === '2'")
    assert page.get_by_role("button", name="Remove all pokes").is_disabled()
    page.keyboard.press("Control+y")
    page.wait_for_function("() => document.querySelector('.pk').dataset.shown === '3'")
    page.keyboard.press("Delete")
    page.wait_for_function("() => document.querySelector('.pk').dataset.shown === '3'")
    unnamed = page.eval_on_selector_all(
        ".pk button, .pk input, .pk select, .pk canvas",
        "all => all.filter(e => !e.getAttribute('aria-label') && !e.textContent.trim()).map(e => e.outerHTML)",
    )
    assert unnamed == []


def test_an_end_can_be_dragged_and_the_window_resized(opened):
    page, _ = opened(width=900)
    drag(page, (0.0, 0.0), (0.4, 0.0))
    drag(page, (0.4, 0.0), (0.0, -0.6))  # the goal
    page.wait_for_function("() => document.querySelector('.pk').dataset.shown === '2'")
    assert "poke 1 changed" in page.locator("[aria-live]").inner_text()
    page.set_viewport_size({"width": 420, "height": 800})
    page.wait_for_timeout(300)
    width, inside = page.evaluate(
        "() => { const c = document.querySelector('canvas.pk-canvas'); return [c.width, c.clientWidth * devicePixelRatio]; }"
    )
    assert abs(width - inside) <= 1 and width < 420
    assert paint(page) > 100
