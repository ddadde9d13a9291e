"""The poke canvas from Python: wishes and answers, stale ones dropped, pictures, exports, the page, the bundled modules."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pokes import forecast, picture

from kinelib.learning.image import to_model_frame
from kinelib.notation import ShapeError
from kinelib.show import export, standalone
from kinelib.show.latest import Latest
from kinelib.show.modules import STATIC, bundle_modules
from kinelib.show.pictures import PictureError, encode_png, open_source, read_upload, shown
from kinelib.show.poke_canvas import PokeCanvas
from kinelib.show.snapshot import density_map
from kinelib.tracks.tracks import Tracks


@pytest.fixture
def canvas():
    return PokeCanvas(picture(), forecast, samples=4, num_frames=16)


def decoded(answer):
    """The futures that went to the page."""
    shape = answer["samples"], answer["points"], answer["frames"], 2
    return torch.from_numpy(np.frombuffer(answer["data"], np.float16).copy()).float().reshape(shape)


# ---- asking


def test_a_poke_returns_futures_that_obey(canvas):
    futures = canvas.poke((0.0, 0.0), (0.5, 0.25))
    assert isinstance(futures, Tracks) and futures.xy.shape == (4, 145, 16, 2)
    # The poked point itself is the last one; sample 0 of the toy reaches the goal.
    torch.testing.assert_close(futures.xy[0, -1, -1], torch.tensor([0.5, 0.25]))
    torch.testing.assert_close(futures.xy[:, -1, 0], torch.zeros(4, 2))
    assert canvas.pokes == [[0.0, 0.0, 0.5, 0.25, 1.0]] and not canvas.busy
    torch.testing.assert_close(decoded(canvas.answer_0), futures.xy, atol=2**-11, rtol=2**-11)


def test_several_pokes_hold_still_goal_times_and_clear(canvas):
    canvas.poke((-0.5, 0.0), (-0.5, 0.5), 0.5, wait=False)
    futures = canvas.hold((0.6, 0.6))
    assert canvas.pokes == [[-0.5, 0.0, -0.5, 0.5, 0.5], pytest.approx([0.6, 0.6, 0.6, 0.6, 1.0])]
    assert futures.num_points == 144 + 2
    canvas.clear()
    assert canvas.futures.displacement().abs().max() == 0


def test_what_did_not_change_is_not_sampled_again():
    calls = []
    canvas = PokeCanvas(picture(), lambda *args, **more: calls.append(more) or forecast(*args, **more), samples=2)
    canvas.poke((0, 0), (0.2, 0))
    there = len(calls)
    assert canvas.futures.xy.shape[0] == 2
    canvas.focus, canvas.view = 1, "futures"
    assert canvas.futures.xy.shape[0] == 2 and len(calls) == there
    canvas.seed = 3
    assert canvas.futures.xy.shape[0] == 2 and len(calls) == there + 1 and calls[-1]["seed"] == 3


def test_controls_are_the_keywords_the_forecaster_takes():
    plain = lambda frame, pokes, mask, points, *, num_frames, samples, seed: forecast(
        frame, pokes, mask, points, num_frames=num_frames, samples=samples, seed=seed
    )
    said = []

    def told(*args, num_frames, samples, seed, text=None):
        said.append(text)
        return forecast(*args, num_frames=num_frames, samples=samples, seed=seed)

    assert PokeCanvas(picture(), plain).controls == ["samples", "seed"]
    assert PokeCanvas(picture(), forecast).controls == ["samples", "seed", "steps", "guidance"]
    assert PokeCanvas(picture(), partial(forecast, guidance=2.0)).controls == ["samples", "seed", "steps"]
    canvas = PokeCanvas(picture(), told, text="a car drives left")
    assert canvas.takes_text and canvas.futures and said == ["a car drives left"]
    assert not PokeCanvas(picture(), plain).takes_text


def test_two_forecasters_answer_the_same_pokes():
    canvas = PokeCanvas(picture(), {"one": forecast, "twice": partial(forecast, guidance=2.0)}, samples=2)
    one = canvas.poke((0.0, 0.0), (0.3, 0.0))
    twice = canvas.futures_of("twice")
    torch.testing.assert_close(twice.displacement(), 2 * one.displacement())
    assert canvas.snapshot().shape[1] > 2 * 300
    with pytest.raises(ValueError, match="two by name"):
        PokeCanvas(picture(), {"a": forecast, "b": forecast, "c": forecast})


def test_where_a_point_will_be(canvas):
    canvas.poke((0.0, 0.0), (0.5, 0.0))
    places = canvas.where((0.0, 0.0))
    assert places.xy.shape == (48, 1, 16, 2) and canvas.view == "where" and canvas.question == [0.0, 0.0]
    assert places.xy[:, 0, -1, 0].std() > 0.05, "many samples, not one answer many times"
    assert canvas.where_0["samples"] == 48
    with pytest.raises(ShapeError, match="outside the frame"):
        canvas.where((2.0, 0.0))


def test_the_dense_field_is_of_the_same_samples(canvas):
    futures = canvas.poke((0.0, 0.0), (0.5, 0.0))
    canvas.view = "field"
    assert canvas.futures.xy.shape == futures.xy.shape
    field = decoded(canvas.field_0)
    assert field.shape == (4, 1024, 16, 2)
    middle = field[:, :, 0].square().sum(-1)[0].argmin()
    moved = (field[:, middle, -1] - field[:, middle, 0])[:, 0]
    torch.testing.assert_close(
        moved / moved[0], (futures.xy[:, -1, -1] / futures.xy[0, -1, -1, 0])[:, 0], atol=0.02, rtol=0.02
    )


@pytest.mark.parametrize(
    "start, goal, time",
    [((1.4, 0), (0, 0), 1), ((0, 0), (float("nan"), 0), 1), ((0, 0), (0.1, 0), 0), ((0, 0), (0.1, 0), 2)],
)
def test_a_poke_out_of_range_changes_nothing(canvas, start, goal, time):
    with pytest.raises(ShapeError):
        canvas.poke(start, goal, time)
    assert canvas.pokes == []


def test_too_many_pokes_are_refused():
    canvas = PokeCanvas(picture(), forecast, most_pokes=1, samples=1)
    canvas.poke((0, 0), (0.1, 0))
    with pytest.raises(ShapeError, match="at most 1"):
        canvas.poke((0.2, 0), (0.1, 0))
    assert len(canvas.pokes) == 1


def test_a_forecasters_error_is_shown_and_raised_and_then_forgotten():
    def broken(*args, seed, **more):
        if seed == 1:
            raise RuntimeError("out of paint")
        return forecast(*args, seed=seed, **more)

    canvas = PokeCanvas(picture(), broken, seed=1)
    with pytest.raises(RuntimeError, match="out of paint"):
        canvas.poke((0, 0), (0.5, 0))
    assert canvas.error == "RuntimeError: out of paint" and not canvas.busy
    canvas.seed = 2
    assert canvas.futures and canvas.error == ""
    nonsense = PokeCanvas(picture(), lambda *args, **more: torch.full((1, 2, 145, 64, 2), float("nan")))
    with pytest.raises(ShapeError, match="NaN|finite"):
        nonsense.poke((0, 0), (0.5, 0))


def test_awaiting_leaves_the_event_loop_free():
    async def story():
        gate = threading.Event()

        def slow(*args, **more):
            gate.wait(10)
            return forecast(*args, **more)

        canvas = PokeCanvas(picture(), slow, samples=2)
        canvas.poke((0, 0), (0.4, 0), wait=False)
        asyncio.get_running_loop().call_later(0.05, gate.set)  # only runs if the loop is free
        return await canvas.settled()

    # On a thread of its own, for another test's browser may have a loop on this one.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: asyncio.run(story())).result(30).xy.shape == (2, 145, 64, 2)


# ---- the worker


def test_only_the_newest_wish_is_fulfilled():
    started, gate, ran = threading.Event(), threading.Event(), []
    worker = Latest()

    def job(number):
        def run(report):
            started.set()
            gate.wait(10)
            ran.append(number)
            report(number)

        return run

    worker.submit("answer", 1, job(1))
    started.wait(10)
    for number in (2, 3, 4):
        worker.submit("answer", number, job(number))
    worker.submit("answer", 3, job(3))  # older than what is known
    worker.submit("other", 1, job("other"))
    gate.set()
    values, ends = [], time.monotonic() + 10
    while worker.busy and time.monotonic() < ends:
        values += [report.value for report in worker.collect(0.1)]
    values += [report.value for report in worker.collect()]
    assert ran == [1, 4, "other"], "2 and 3 never ran"
    assert values == [4, "other"], "1 ended after 4 was asked for, so nobody hears it"
    assert worker.dropped == 4


def test_a_long_wish_is_told_when_nobody_wants_it_any_more():
    worker, begun, told = Latest(), threading.Event(), []

    def long(report):
        while len(told) < 10_000:
            told.append(report("part"))
            begun.set()
            if not told[-1]:
                return
            time.sleep(0.001)

    worker.submit("where", 1, long)
    begun.wait(10)
    worker.cancel("where", 2)
    ends = time.monotonic() + 10
    while worker.busy and time.monotonic() < ends:
        time.sleep(0.005)
    assert told[-1] is False and len(told) < 10_000 and worker.collect() == []


def test_a_hand_that_moves_fast_gets_the_last_answer():
    seeds = []

    def slow(*args, seed, **more):
        time.sleep(0.05)
        seeds.append(seed)
        return forecast(*args, seed=seed, **more)

    canvas = PokeCanvas(picture(), slow, samples=1)
    for seed in range(1, 20):
        # As the page does: what changed, together with the next request number.
        canvas.set_state({"seed": seed, "request": canvas.request + 1})
    assert canvas.futures and seeds[-1] == 19 and len(seeds) < 6
    assert canvas.answer_0["request"] == canvas.request == 20


# ---- pictures


def test_pictures_films_and_functions_are_offered(tmp_path):
    cv2.imwrite(str(tmp_path / "still.png"), picture()[..., ::-1])
    film = np.stack([picture(), picture()[:, ::-1]])
    many = lambda draw: np.full((40, 40, 3), draw, np.uint8)
    pictures = {"film": film, "many": many, "file": tmp_path / "still.png"}
    canvas = PokeCanvas("film", forecast, pictures=pictures, samples=1)
    assert canvas.sources == ["film", "many", "file"] and canvas.moments == 2 and not canvas.has_more
    canvas.poke((0, 0), (0.1, 0))
    before = canvas.picture
    canvas.set_state({"moment": 1, "request": canvas.request + 1})
    assert canvas.picture != before and canvas.pokes == []
    canvas.set_state({"source": "many", "moment": 0, "request": canvas.request + 1})
    assert canvas.has_more and canvas.picture_size == [40, 40] and canvas.futures
    canvas.set_state({"draw": 200, "request": canvas.request + 1})
    assert cv2.imdecode(np.frombuffer(canvas.picture, np.uint8), 1).mean() == pytest.approx(200, abs=2)
    canvas.choose("file")
    assert canvas.picture_size == [120, 90] and not canvas.has_more
    with pytest.raises(ValueError, match="no picture named"):
        canvas.choose("elsewhere")


def test_uploads(canvas, tmp_path):
    sent = []
    canvas.send = lambda content, buffers=None: sent.append((content, buffers))
    canvas._handle_custom_msg({"kind": "upload", "name": "cat.png"}, [encode_png(picture(30, 40))])
    assert canvas.source == "cat.png" and canvas.picture_size == [40, 30] and not sent
    for name, data, words in (("cat.jpg", b"no", "damaged"), ("letter.txt", b"Dear", "not a picture"), ("", b"", "empty")):
        canvas._handle_custom_msg({"kind": "upload", "name": name}, [data])
        assert words in sent[-1][0]["words"]
    assert canvas.source == "cat.png", "what cannot be read changes nothing"
    with pytest.raises(PictureError, match="not a video"):
        read_upload("film.mp4", b"not a film")
    export.save(export.Shown(picture(), canvas.futures.xy, torch.zeros(0, 5)), tmp_path / "film.mp4")
    assert open_source(tmp_path / "film.mp4").ndim == 4


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((40, 40, 3)), np.zeros((2, 400, 3), np.uint8)])
def test_what_is_not_a_picture_is_refused(bad):
    with pytest.raises(PictureError):
        PokeCanvas(bad, forecast)


def test_large_pictures_are_shown_small():
    assert shown(np.zeros((2000, 1000, 3), np.uint8)).shape == (640, 320, 3)


# ---- saving


def test_every_format_holds_what_is_shown(canvas, tmp_path):
    import pyarrow.parquet

    futures = canvas.poke((0.0, 0.0), (0.6, 0.2)).xy
    for kind in export.FORMATS:
        assert canvas.save(tmp_path / f"futures.{kind}").stat().st_size > 1000
    with np.load(tmp_path / "futures.npz") as saved:
        np.testing.assert_array_equal(saved["tracks"], futures.numpy())
        np.testing.assert_allclose(saved["pokes"], [[0.0, 0.0, 0.6, 0.2, 1.0]], rtol=1e-6)
        assert json.loads(str(saved["settings"])) == {"samples": 4, "seed": 0, "steps": 6, "guidance": 1.0}
    table = pyarrow.parquet.read_table(tmp_path / "futures.parquet")
    assert table.num_rows == futures[..., 0].numel()
    np.testing.assert_array_equal(table["y"].to_numpy(), futures[..., 1].flatten().numpy())
    film = open_source(tmp_path / "futures.mp4")
    assert film.shape[1:] == (336, 448, 3) and len(film) == 16 + export.REST
    assert np.abs(film[0].astype(int) - film[15]).mean() > 0.3, "nothing moves in the film"
    assert (tmp_path / "futures.gif").read_bytes().startswith(b"GIF89a")
    with pytest.raises(ValueError, match=r"\.mp4"):
        canvas.save(tmp_path / "futures.doc")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_focus_is_kept_in_what_is_saved(canvas):
    futures = canvas.poke((0.0, 0.0), (0.6, 0.2)).xy
    everything, alone = (
        export.film(export.Shown(picture(), futures, torch.zeros(0, 5), focus=focus), size=160)[-1] for focus in (-1, 2)
    )
    assert np.abs(everything.astype(int) - alone).sum() > 0
    resting = export.film(export.Shown(picture(), torch.zeros(2, 5, 8, 2), torch.zeros(0, 5)), size=160)
    assert len(resting) == 8 + export.REST and (resting[0] == resting[-1]).all()


def test_downloads_are_made_beside_the_kernel(canvas):
    sent = []
    canvas.send = lambda content, buffers=None: sent.append((content, buffers))
    canvas.poke((0.0, 0.0), (0.6, 0.2))
    canvas._handle_custom_msg({"kind": "save", "format": "png", "focus": 1}, [])
    ends = time.monotonic() + 10
    while not sent and time.monotonic() < ends:
        canvas._collect(0.1)
    ((content, (data,)),) = sent
    assert content == {"kind": "file", "name": "futures.png", "type": "image/png"} and data.startswith(b"\x89PNG")


def test_an_executed_notebook_keeps_a_picture(canvas, monkeypatch):
    monkeypatch.delenv("KINELIB_HEADLESS", raising=False)
    empty = canvas._repr_mimebundle_()[0]["image/png"]
    canvas.poke((0.0, 0.0), (0.6, 0.2), wait=False)
    data, _ = canvas._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data["image/png"]), np.uint8), 1)
    assert image.shape == (315, 420, 3) and data["image/png"] != empty
    monkeypatch.setenv("KINELIB_HEADLESS", "1")
    assert canvas._repr_mimebundle_()[0].keys() == {"text/plain", "image/png"}, "a dead widget would hide the picture"
    unseen = PokeCanvas(picture(), forecast, samples=2)
    assert unseen.comm is None and unseen.poke((0, 0), (0.2, 0)).xy.shape[0] == 2
    assert "image/png" in unseen._repr_mimebundle_()[0]


def test_the_picture_is_of_the_view_that_is_shown(canvas):
    canvas.poke((0.0, 0.0), (0.6, 0.2))
    futures = canvas.snapshot()
    canvas.view = "field"
    assert canvas.futures
    field = canvas.snapshot()
    canvas.where((0.0, 0.0))
    where = canvas.snapshot()
    for one, other in ((futures, field), (futures, where), (field, where)):
        assert np.abs(one.astype(int) - other).mean() > 3


def test_the_density_is_where_the_places_are():
    density = density_map(torch.tensor([[0.5, -0.5], [0.5, -0.5], [-0.5, 0.5]]), cells=40, blur=0.08)
    row, column = divmod(int(density.argmax()), 40)
    assert (row, column) in {(r, c) for r in (9, 10) for c in (29, 30)} and density.max() == 1
    assert density[29:31, 9:11].max() == pytest.approx(0.5, abs=0.02) and density[35, 35] < 1e-3


# ---- the page and its modules


def test_the_page_is_whole_small_and_asks_nobody(tmp_path, canvas):
    path = canvas.to_html(tmp_path / "page.html", starts=3, directions=4, reaches=(0.5,), title="Pokes </title>")
    text = path.read_text()
    assert path.stat().st_size < standalone.LARGEST and "&lt;/title&gt;" in text
    assert not re.search(r"""(src|href)=["'](?!data:)|https?://|@import|\bfetch\(|\bimport\(""", text)
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])
    assert len(facts["pokes"]) == 1 + 9 * (1 + 4) and facts["pokes"][0] is None


def test_stored_futures_survive_their_packing():
    frame = to_model_frame(picture()[None], 64)
    moves = torch.randn(5, 3, 16, 7, 2, generator=torch.Generator().manual_seed(0)).cumsum(3).numpy() * 0.05
    scales, packed = standalone.pack_displacements(moves)
    steps = np.frombuffer(zlib.decompress(packed, -15), np.uint8).reshape(5, 2, 3, 7, 16)
    numbers = np.cumsum(steps, axis=3, dtype=np.uint8).astype(np.int8).transpose(0, 2, 4, 3, 1)
    again = numbers * scales[:, None, None, None, None] / 127
    assert np.abs(again - moves).max() <= 0.51 * scales.max() / 127
    with pytest.raises(ValueError, match="lower starts"):
        noise = lambda frame, pokes, mask, points, *, num_frames, samples, seed: torch.rand(
            1, samples, points.shape[1], num_frames, 2, generator=torch.Generator().manual_seed(seed)
        )
        options = dict(starts=3, directions=4, reaches=(0.5,), samples=8, grid=24, num_frames=16)
        standalone.write_page("never.html", picture(), frame, noise, **options)
    assert not Path("never.html").exists()
    for wrong in (dict(starts=0), dict(reaches=()), dict(num_frames=1)):
        with pytest.raises(ValueError, match="at least 1"):
            standalone.write_page("never.html", picture(), frame, forecast, **wrong)


def test_modules_become_one():
    bundle = bundle_modules("poke_canvas.js")
    assert not re.search(r"^import\b", bundle, re.MULTILINE)
    assert len(re.findall(r"^export default", bundle, re.MULTILINE)) == 1 and "class Player" in bundle
    assert "export " not in bundle_modules("standalone.js").replace("export function nearest", "").replace(
        "export function unpack", ""
    )


def test_modules_that_do_not_fit_are_refused(tmp_path):
    (tmp_path / "a.js").write_text('import { two } from "./b.js";\nexport const one = 1;\n')
    (tmp_path / "b.js").write_text("export const two = 2;\nconst one = 3;\n")
    with pytest.raises(ValueError, match="both define one"):
        bundle_modules("a.js", tmp_path)
    (tmp_path / "b.js").write_text('import everything from "./c.js";\n')
    with pytest.raises(ValueError, match="import"):
        bundle_modules("a.js", tmp_path)


def test_our_modules_are_short_and_load_nothing():
    files = sorted(STATIC.glob("*.js"))
    assert len(files) >= 9
    for path in files:
        text = path.read_text()
        assert len(text.splitlines()) <= 420 and text.startswith("/**"), path.name
        assert not re.search(r"https?://|\bfetch\(|XMLHttpRequest|\beval\(", text), path.name
