"""A poke canvas as one HTML file that works offline: futures are computed beforehand over a grid of pokes.

The page holds the picture, our ES module, and for every start of a grid and every direction a few futures as 8-bit
displacements, deflated. The nearest stored poke answers a drag, and the page says so. It asks nothing of any network and
opens from disk; the browser needs `DecompressionStream` (every one since 2023).

Shapes: picture uint8 (H, W, 3), frame (1, 3, S, S), stored futures (M entries, K, N, T, 2).
"""

from __future__ import annotations

import base64
import html
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinelib.learning.files import written_whole
from kinelib.notation import cell_centres
from kinelib.show.modules import STATIC, bundle_modules
from kinelib.show.pictures import encode_jpeg, shown
from kinelib.tracks.tracks import Poke, pack_pokes

LARGEST = 2_000_000  # bytes of a page
PICTURE_SIDE = 480  # pixels of its picture


def write_page(
    path: str | Path,
    picture: np.ndarray,
    frame: Tensor,
    forecast: Callable[..., Tensor],
    *,
    starts: int = 6,
    directions: int = 8,
    reaches: tuple[float, ...] = (0.35, 0.8),
    samples: int = 4,
    grid: int = 12,
    num_frames: int = 8,
    seed: int = 0,
    title: str = "Poke a picture",
) -> Path:
    """Writes the page; the file appears once it is whole.

    Args:
        path: ends in .html.
        picture: uint8 (H, W, 3), what is shown.
        frame: (1, 3, S, S), what the forecaster reads.
        forecast: as for `PokeCanvas`, called once a stored poke.
        starts: stored pokes start at the centres of starts x starts cells.
        directions: of the stored pokes, evenly around the circle; every start has "hold still" too.
        reaches: lengths of the stored pokes in units of half a frame.
        samples: K futures a poke.
        grid: points a side whose futures are stored.
        num_frames: moments stored of each future; the page goes smoothly between them.
        seed: of the noise.
        title: of the page.

    Raises:
        ValueError: when the name does not end in .html, a number is out of range, or the page would be 2 MB or more.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"{path.name} must end in .html.")
    if min(starts, directions, samples, grid) < 1 or num_frames < 2 or not reaches or min(reaches) <= 0:
        raise ValueError("starts, directions, samples and grid must be at least 1, num_frames 2, and reaches positive.")
    pokes = stored_pokes(starts, directions, reaches)
    points = cell_centres(grid, grid)
    entries = []
    for poke in pokes:
        packed, mask = pack_pokes([poke] if poke else [])
        with torch.no_grad():
            tracks = forecast(frame, packed, mask, points[None], num_frames=num_frames, samples=samples, seed=seed)[0]
        entries.append((tracks - tracks[:, :, :1])[:, :, 1:].float().cpu().numpy())
    scales, packed = pack_displacements(np.stack(entries))
    facts = {
        "picture": _text(encode_jpeg(shown(picture, PICTURE_SIDE), 85)),
        "picture_size": [picture.shape[1], picture.shape[0]],
        "pokes": [[*poke.start_xy, *poke.goal_xy] if poke else None for poke in pokes],
        "scales": [float(f"{scale:.5g}") for scale in scales],
        "points": [[round(value, 5) for value in point] for point in points.tolist()],
        "samples": samples,
        "frames": num_frames,
        "futures": _text(packed),
    }
    page = _page(title, facts)
    if len(page) >= LARGEST:
        raise ValueError(
            f"the page would be {len(page) / 1e6:.1f} MB, and 2 MB is the limit: lower starts, directions, samples, grid or "
            f"num_frames ({starts}, {directions}, {samples}, {grid}, {num_frames} now)."
        )
    with written_whole(path) as partial:
        partial.write_bytes(page)
    return path


def stored_pokes(starts: int, directions: int, reaches: tuple[float, ...]) -> list[Poke | None]:
    """The pokes whose futures a page stores: none at all first, then, for every start, "hold still" and all the others."""
    wanted: list[Poke | None] = [None]
    for x, y in cell_centres(starts, starts).tolist():
        wanted.append(Poke((x, y), (x, y)))
        for reach in reaches:
            for turn in range(directions):
                angle = 2 * math.pi * turn / directions
                wanted.append(Poke((x, y), (x + reach * math.cos(angle), y + reach * math.sin(angle))))
    return wanted


def pack_displacements(moves: np.ndarray) -> tuple[np.ndarray, bytes]:
    """Displacements (M, K, N, T - 1, 2) as deflated 8-bit numbers with a scale an entry: value = number * scale / 127.

    Stored as steps from moment to moment, x apart from y, which are small and alike and so take little room.
    """
    scales = np.abs(moves).reshape(len(moves), -1).max(1).clip(1e-6)
    numbers = np.round(moves / scales[:, None, None, None, None] * 127).astype(np.int16)
    # (M, 2, K, T - 1, N): neighbours in memory are neighbours in the picture.
    numbers = numbers.transpose(0, 4, 1, 3, 2)
    steps = np.diff(numbers, axis=3, prepend=0).astype(np.uint8)  # modulo 256, undone by adding up modulo 256
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return scales, deflate.compress(steps.tobytes()) + deflate.flush()


def _page(title: str, facts: dict) -> bytes:
    # A closing tag inside a script would end it.
    script = bundle_modules("standalone.js").replace("</", "<\\/")
    data = json.dumps(facts, separators=(",", ":")).replace("</", "<\\/")
    style = (STATIC / "poke_canvas.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; padding: 16px; background: light-dark(#eef1f5, #0f1319); color: light-dark(#1b2330, #e8ecf2);
 font: 14px/1.5 system-ui, sans-serif; }}
main {{ max-width: 646px; margin: 0 auto; }}
h1 {{ margin: 0 0 4px; font-size: 20px; }}
.about {{ margin: 0 0 14px; max-width: 70ch; }}
{style}
</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
<p class="about">Drag a point of the picture and watch {facts["samples"]} sampled futures. They were computed beforehand for
{len(facts["pokes"]) - 1} pokes; the nearest one answers. Nothing is loaded from anywhere: this file works offline.</p>
<div id="canvas"></div>
</main>
<script type="application/json" id="facts">{data}</script>
<script type="module">
{script}
</script>
</body>
</html>
""".encode()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
