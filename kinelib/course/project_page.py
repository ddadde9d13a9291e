"""What ZipMo's project page shows, each as a figure with the measurement that backs it.

Source: the capabilities shown on the project page: path finding, rotation, joints, several futures of one frame, position
distributions over time, interpolation between two motions, and motions far longer than one window. There they are shown
on chosen videos; here the scene is the first held-out one of its family for the seed, and the title gives the measure over
several scenes, n stated, beside true motion and a trivial baseline, whatever it says.

Shapes: B scenes, K futures, N points, T frames; xy in [-1, 1]. Pixels are those of a 128-pixel canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from kinelib.learning.image import to_model_frame
from kinelib.notation import to_pixels
from kinelib.show.distributions import position_density, region_area, show_distributions
from kinelib.show.theme import (
    BLACK,
    BLUE,
    GREY,
    SAMPLE_COLOURS,
    TIME_MAP,
    VERMILION,
    draw_frame,
    method_style,
    new_figure,
    themed,
)
from kinelib.show.tracks import draw_paths, draw_pokes
from kinelib.tracks.scenes import Scenes, sample_scenes
from kinelib.zipmo import baselines
from kinelib.zipmo.data import TEST_SEED
from kinelib.zipmo.forecast import LatentForecast
from kinelib.zipmo.interpolation import great_circle, sample_from_noise, smoothness, straight_way
from kinelib.zipmo.long_motion import LongMotion, extend, seam_jumps, window_ends
from kinelib.zipmo.plausibility import (
    CANVAS,
    bodies_of,
    body_pokes,
    crosses_walls,
    fit_rigid,
    measure,
    measure_truth,
    questions,
    rigidity_error,
    still_camera_scenes,
)


@dataclass(frozen=True)
class Page:
    """The forecaster and the extent of the page, shared by all figures.

    Args:
        latent: the forecaster shown.
        seed: of the scenes and the noise.
        scenes: held-out scenes a measure is taken over, at least 2.
        futures: K of the pictures; measures take 4 a scene.
    """

    latent: LatentForecast
    seed: int = 0
    scenes: int = 12
    futures: int = 12

    def draw(self, family: str) -> Scenes:
        """Held-out scenes without camera motion."""
        return still_camera_scenes(self.scenes, TEST_SEED + self.seed, family)

    def frame(self, scenes: Scenes) -> Tensor:
        """(B, 3, S, S) as the model takes it."""
        return to_model_frame(scenes.first_frame, self.latent.autoencoder.config.frame_size)

    def ask(self, scenes: Scenes, pokes: int, samples: int, forecaster: Callable | None = None) -> Tensor:
        """Futures (B, K, Q, T, 2) at the points of `questions`, with pokes on moving bodies."""
        given = (self.frame(scenes), *body_pokes(scenes, pokes), questions(scenes).points)
        forecaster = forecaster or self.latent
        return forecaster(*given, num_frames=scenes.tracks.num_frames, samples=samples, seed=self.seed)


@lru_cache(maxsize=8)
def compare(page: Page, family: str, pokes: int) -> dict[str, dict[str, float]]:
    """Measure -> who -> mean over scenes: true motion, its reconstruction (all that our decoder can say), linear, ours.

    The measures are those of `plausibility.measure`, and `base`: pixels by which an arm's bolted-down joint ends elsewhere.
    """
    scenes = page.draw(family)
    codec, frame, asked = page.latent.autoencoder, page.frame(scenes), questions(scenes)
    with torch.no_grad():
        again = codec.decode(codec.encode(scenes.tracks.xy, frame).mean, frame, asked.points, asked.truth.shape[2])
    futures = {"true": asked.truth[:, None], "reconstructed": again[:, None]}
    futures |= {"linear": page.ask(scenes, pokes, 1, baselines.linear), "ours": page.ask(scenes, pokes, 4)}
    joint = scenes.tracks.num_points + 1
    base = lambda tracks: (tracks[:, :, joint, -1] - tracks[:, :, joint, 0]).norm(dim=-1) * CANVAS / 2
    found = {who: measure(tracks, scenes) | {"base": base(tracks)} for who, tracks in futures.items()}
    return {name: {who: float(row[name].nanmean()) for who, row in found.items()} for name in found["ours"]}


def project_page_figures(latent: LatentForecast, seed: int = 0, scenes: int = 12) -> dict[str, Figure]:
    """Draws the seven figures: name -> figure, in the page's order.

    Args:
        latent: for example `load_latent()`.
        seed: of scenes and noise; figures are not chosen, another seed shows other scenes.
        scenes: held-out scenes behind every measure.
    """
    page = Page(latent, seed, scenes)
    figures = (path_finding, rotation, joints, futures, distributions, interpolation, long_motion)
    return {draw.__name__.replace("_", "-"): draw(page) for draw in figures}


@themed
def path_finding(page: Page) -> Figure:
    """Futures of mazes with a poke on the agent: which go through a gate, and which through a wall."""
    shown, shares = page.draw("maze")[:4], compare(page, "maze", 1)
    samples, line = page.ask(shown, 1, page.futures), page.ask(shown, 1, 1, baselines.linear)
    asked, points = questions(shown), shown.tracks.num_points
    pokes, mask = body_pokes(shown, 1)
    centre, walls = samples[:, :, points], shown.facts["walls"]
    crossed = crosses_walls(centre[:, :, None], walls)[..., 0]
    figure, axes = new_figure(1, len(shown), 2.5, 3.1, "compressed")
    colours = {True: VERMILION, False: method_style("zipmo")[0]}
    for row, panel in enumerate(axes[0]):
        place = draw_frame(panel, shown.first_frame[row], dim=0.35)
        for path, bad in zip(centre[row], crossed[row].tolist(), strict=True):
            panel.plot(*to_pixels(path, *place).T, color=colours[bad], linewidth=1.2, alpha=0.85)
        panel.plot(*to_pixels(line[row, 0, points], *place).T, color=GREY, linestyle="--", linewidth=1.8)
        panel.plot(*to_pixels(asked.truth[row, points], *place).T, color=BLACK, linewidth=2)
        draw_pokes(panel, pokes[row], mask[row], place)
        panel.set_title(f"{int((~crossed[row]).sum())} of {page.futures} keep clear")
    styles = [("ours, clear", BLUE, "-"), ("ours, through a wall", VERMILION, "-"), ("linear", GREY, "--")]
    _legend(figure, [*styles, ("what happened", BLACK, "-")])
    lines = [("Path finding, one poke on the agent: futures through a wall", shares["crossed"], "%", 0)]
    return _headline(figure, page, [*lines, ("beyond the first wall, and through none", shares["passed"], "%", 0)])


@themed
def rotation(page: Page) -> Figure:
    """A turning body with two pokes: tracks of the truth, one future and the linear baseline, and the angle over time."""
    errors, shown = compare(page, "rigid", 2), _first_turning(page.draw("rigid"))
    samples, line = page.ask(shown, 2, page.futures), page.ask(shown, 2, 1, baselines.linear)
    truth, points = questions(shown).truth, shown.tracks.num_points
    members = bodies_of(shown) >= 0
    pokes, mask = body_pokes(shown, 2)
    figure, axes = new_figure(1, 4, 2.6, 3.1, "compressed")
    kinds = {"what happened": truth[0], "a future of ours": samples[0, 0], "linear": line[0, 0]}
    for panel, (name, tracks) in zip(axes[0], kinds.items(), strict=False):
        place = draw_frame(panel, shown.first_frame[0], dim=0.3)
        body = tracks[:points][members[0]]
        draw_paths(panel, body, torch.ones(body.shape[:2], dtype=torch.bool), place, "time", width=1.0)
        draw_pokes(panel, pokes[0], mask[0], place)
        panel.set_title(name)
    _crop(axes[0, :3], torch.stack([tracks[:points][members[0]] for tracks in kinds.values()]), place)
    panel = axes[0, 3]
    turn = lambda tracks: fit_rigid(tracks[:, :, :points], members).angle[0]
    panel.plot(turn(samples).T, color=method_style("zipmo")[0], alpha=0.45, linewidth=1)
    panel.plot(turn(line)[0], color=GREY, linestyle="--", linewidth=1.8)
    panel.plot(turn(truth[:, None])[0], color=BLACK, linewidth=2)
    panel.set(xlabel="frame", ylabel="angle of the body (degrees)", title=f"{page.futures} futures")
    _legend(figure, [("ours", BLUE, "-"), ("linear", GREY, "--"), ("what happened", BLACK, "-")])
    lines = [("Rotation, two pokes: distance from a rigid body", errors["rigidity"], "px", 1)]
    return _headline(figure, page, [*lines, ("turned by", errors["turn"], "degrees", 0)])


def _first_turning(scenes: Scenes) -> Scenes:
    """The first scene whose body really turns, by 45 degrees or more; the first of all where none does."""
    turns = measure_truth(scenes)["turn"] >= 45
    return scenes[[int(turns.float().argmax())]]


@themed
def joints(page: Page) -> Figure:
    """An arm with one poke: its chain of joints over time."""
    errors, shown = compare(page, "arm", 1), page.draw("arm")[:1]
    points, real = shown.tracks.num_points, ~torch.isnan(shown.facts["joints"][0, :, 0, 0])
    truth, tip = questions(shown).truth, points + int(real.sum())
    pokes = torch.cat([truth[:, tip, 0], truth[:, tip, -1], torch.ones(1, 1)], dim=-1)[:, None]
    mask = torch.ones(1, 1, dtype=torch.bool)
    given = (page.frame(shown), pokes, mask, questions(shown).points)
    samples, line = page.latent(*given, samples=2, seed=page.seed), baselines.linear(*given)
    kinds = {"what happened": truth[0], "ours, future 1": samples[0, 0], "ours, future 2": samples[0, 1]}
    kinds["linear"] = line[0, 0]
    figure, axes = new_figure(1, len(kinds), 2.5, 2.9, "compressed")
    for panel, (name, tracks) in zip(axes[0], kinds.items(), strict=True):
        place = draw_frame(panel, shown.first_frame[0], dim=0.45)
        chain = to_pixels(tracks[points + 1 :][real], *place)
        moments = np.linspace(0, chain.shape[1] - 1, 7).round().astype(int)
        for moment, colour in zip(moments, _time_colours(len(moments)), strict=True):
            panel.plot(*chain[:, moment].T, color=colour, marker="o", markersize=3.5, linewidth=1.8)
        draw_pokes(panel, pokes[0], mask[0], place)
        panel.set_title(name)
    _crop(axes[0], torch.stack([tracks[points + 1 :][real] for tracks in kinds.values()]), place)
    _time_bar(figure, axes, shown.tracks.num_frames)
    lines = [("Joints, one poke (here on the hand): change of link lengths", errors["link"], "%", 1)]
    return _headline(figure, page, [*lines, ("the bolted-down joint moves by", errors["base"], "px", 1)])


@themed
def futures(page: Page) -> Figure:
    """Several futures of one frame without a poke, beside as many true ones."""
    scenes = page.draw("vehicle")
    points, shown = scenes.tracks.num_points, scenes[:1]
    happening = _true_futures(page, scenes, page.futures)
    ends = {"true": happening[:, :, points, -1], "ours": page.ask(scenes, 0, page.futures)[:, :, points, -1]}
    far = {who: (end - end.mean(1, keepdim=True)).norm(dim=-1).mean() for who, end in ends.items()}
    values = {"true": float(far["true"]) * CANVAS / 2, "linear": 0.0, "ours": float(far["ours"]) * CANVAS / 2}
    ours, truths = page.ask(shown, 0, page.futures)[0], happening[0]
    members = bodies_of(shown)[0] >= 0
    seen = lambda body: torch.ones(body.shape[:2], dtype=torch.bool)
    figure, axes = new_figure(1, 5, 2.2, 2.75, "compressed")
    panels = {f"{page.futures} futures of ours": ours, f"{page.futures} true futures": truths}
    for panel, (name, tracks) in zip(axes[0, [0, 4]], panels.items(), strict=True):
        place = draw_frame(panel, shown.first_frame[0], dim=0.3)
        for index, track in enumerate(tracks):
            body = track[:points][members][::6]
            draw_paths(panel, body, seen(body), place, SAMPLE_COLOURS[index % len(SAMPLE_COLOURS)], width=0.9)
        panel.set_title(name)
    for index, panel in enumerate(axes[0, 1:4]):
        place = draw_frame(panel, shown.first_frame[0], dim=0.3)
        body = ours[index, :points][members]
        draw_paths(panel, body, seen(body), place, "time", width=0.9)
        panel.set_title(f"ours, future {index + 1}")
    return _headline(figure, page, [("Several futures, no poke: spread of where the body ends", values, "px", 1)])


def _true_futures(page: Page, scenes: Scenes, count: int) -> Tensor:
    """Other true futures of the first frames of a family, camera motion undone: (B, count, N + 1, T, 2), centre last."""
    found = []
    for future in range(count):
        # As many rows as surely hold these scenes; their pictures are not needed, equal start points say which is which.
        settings = dict(families=scenes.family[:1], size=8, future_seed=77_000 + future)
        others = sample_scenes(2 * len(scenes) + 8, TEST_SEED + page.seed, **settings)
        apart = torch.cdist(scenes.tracks.query_points.flatten(1), others.tracks.query_points.flatten(1))
        others = others[apart.argmin(1)]
        matrix, shift = others.facts["view"].split([2, 1], dim=-1)
        screen = rearrange(others.tracks.xy, "b n t c -> b n t c 1")
        world = torch.linalg.solve(matrix[:, None], screen - shift[:, None])[..., 0]
        found.append(torch.cat([world, others.facts["centre"][:, None]], dim=1))
    return torch.stack(found, dim=1)


@lru_cache(maxsize=2)
def middles(page: Page, count: int = 24) -> dict[str, Tensor]:
    """Paths (K, T, 2) of the middle of a car: what may truly happen, our futures, and our futures given a poke."""
    shown = page.draw("vehicle")[:1]
    point = shown.tracks.num_points
    paths = {"true": _true_futures(page, shown, count)[0, :, point]}
    paths |= {"ours, no poke": page.ask(shown, 0, count)[0, :, point]}
    return paths | {"ours, one poke": page.ask(shown, 1, count)[0, :, point]}


@themed
def distributions(page: Page) -> Figure:
    """Where the middle of a car will be, over time: what may truly happen, our futures, and our futures given a poke."""
    shown, rows = page.draw("vehicle")[:1], middles(page)
    pokes, mask = body_pokes(shown, 1)
    found = ", ".join(f"{name} {region_area(position_density(paths[:, -1])):.1f}" for name, paths in rows.items())
    title = "Where the car's middle may be. Smallest region that holds 90 % of the futures at time 1, in % of the\nframe: "
    title += f"{found}.  1 scene"
    return show_distributions(shown.first_frame[0], rows, pokes={"ours, one poke": (pokes[0], mask[0])}, title=title)


@lru_cache(maxsize=2)
def ways(page: Page, steps: int = 7) -> dict[str, Tensor]:
    """Two ways (A, N, T, 2) from one future of a frame to another, ends shared: averaged latents, and noises turned."""
    shown = page.draw("vehicle")[:1]
    frame, generator = page.frame(shown), torch.Generator().manual_seed(page.seed)
    noise = torch.randn(2, *page.latent.planner.config.latent_shape, generator=generator)
    turned = sample_from_noise(page.latent, frame, *body_pokes(shown, 0), great_circle(noise[0], noise[1], steps)[None])
    found = {"from latent to latent": straight_way(turned[0, 0], turned[0, -1], steps)[None]}
    found["from noise to noise"] = turned  # every step a sample of the model
    return {name: page.latent.decode(latents, frame, shown.tracks.query_points)[0] for name, latents in found.items()}


@themed
def interpolation(page: Page) -> Figure:
    """Two futures of one frame and the ways between them: averaged latents, and noises turned into each other."""
    shown, steps = page.draw("vehicle")[:1], 7
    body = bodies_of(shown)
    figure, axes = new_figure(2, steps, 1.7, 2.05, "compressed")
    for line, (name, tracks) in zip(axes, ways(page, steps).items(), strict=True):
        found, bent = smoothness(tracks), rigidity_error(tracks[None], body)[0][0]
        for step, panel in enumerate(line):
            place = draw_frame(panel, shown.first_frame[0], dim=0.3)
            drawn = tracks[step][body[0] >= 0]
            draw_paths(panel, drawn, torch.ones(drawn.shape[:2], dtype=torch.bool), place, "time", width=0.8)
            panel.set_xlabel(f"bends {bent[step]:.1f} px", fontsize=7.5, labelpad=2)
            panel.set_title(f"{step / (steps - 1):.2f}", fontsize=8.5)
        _crop(line, tracks[:, body[0] >= 0], place)
        line[0].set_ylabel(f"{name}\ndetour {found.detour:.2f}, jump {found.largest_jump:.2f}", fontsize=8)
    title = (
        "Interpolation between two futures of one frame (left and right). Detour: length of the way / distance of its ends"
    )
    figure.suptitle(f"{title}; jump: largest / mean step.  1 scene", fontsize=10, x=0.01, ha="left")
    return figure


@lru_cache(maxsize=2)
def chained(page: Page) -> tuple[Scenes, LongMotion, LongMotion]:
    """Up to 4 scenes whose body is led around a square for 10 seconds: scenes, with velocity carried over, without."""
    scenes = page.draw("rigid")[:4]
    starts, lead = scenes.tracks.query_points, _around_a_square(bodies_of(scenes))
    given = (page.frame(scenes), *lead(1, starts), starts)
    follow = lambda carry: extend(page.latent, *given, seconds=10, seed=page.seed, carry=carry, steer=lead)
    return scenes, follow(2), follow(0)


@themed
def long_motion(page: Page) -> Figure:
    """Ten seconds in four windows, a body led around a square: warped frames, speed and its seams, and how much it bends."""
    scenes, motion, free = chained(page)
    bodies = bodies_of(scenes)
    jumps, free_jumps = seam_jumps(motion), seam_jumps(free)
    windows = motion.first_frames.shape[2]
    length = (motion.tracks.shape[3] - 1) // windows + 1
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    panels = upper.subplots(1, windows)
    for window, panel in enumerate(panels):
        place = draw_frame(panel, motion.first_frames[0, 0, window], dim=0.2)
        start = window * (length - 1)
        body = motion.tracks[0, 0, bodies[0] >= 0, start : start + length]
        draw_paths(panel, body, torch.ones(body.shape[:2], dtype=torch.bool), place, "time", width=0.8)
        kind = "the first frame" if window == 0 else "warped frame"
        panel.set_title(f"{start / motion.fps:.1f} s: {kind}")
    speed, drift = lower.subplots(1, 2)
    _draw_speed(speed, motion, free, bodies)
    ends = torch.cat([torch.zeros(1, dtype=torch.long), window_ends(motion)])
    for found, style in ((motion, {"color": BLUE, "marker": "o"}), (free, {"color": VERMILION, "marker": "s"})):
        # The error of frame 0 and an end, averaged over the two, is half of the end's.
        bent = [2 * rigidity_error(found.tracks[:, :, :, [0, end]], bodies)[0].nanmean() for end in ends.tolist()]
        drift.plot(ends / motion.fps, bent, **style)
    drift.set(xlabel="time (s)", ylabel="distance from rigid (px)", title=f"drift, {len(scenes)} scenes", ylim=(0, None))
    drift.legend(["velocity carried over", "nothing carried over"])
    lines = (
        f"A body led around a square, one side and 3 pokes a window: {motion.seconds:.1f} s in {windows} windows at "
        f"{motion.fps:g} frames a second.  {len(scenes)} scenes, {jumps['points']} points",
        f"Change of velocity from frame to frame, px: at seams {jumps['seam']:.2f} (without carrying velocity over "
        f"{free_jumps['seam']:.2f}), inside windows {jumps['inside']:.3f}, 99th percentile {jumps['inside_99']:.2f}",
    )
    figure.suptitle("\n".join(lines), fontsize=10, x=0.01, ha="left")
    return figure


def _around_a_square(bodies: Tensor, half: float = 0.42) -> Callable[[int, Tensor], tuple[Tensor, Tensor]]:
    """Pokes for windows 1, 2, ... that push three points of the body so that its middle goes to the next corner."""
    members = bodies >= 0
    corners = half * torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    middle = lambda xy: (xy * members[..., None]).sum(1) / members.sum(1, keepdim=True)
    poked = members.int().topk(3, dim=1).indices[..., None].expand(-1, -1, 2)
    first: list[Tensor] = []

    def lead(window: int, position: Tensor) -> tuple[Tensor, Tensor]:
        now = middle(position)
        if not first:
            first.append(torch.cdist(now, corners).argmin(1))
        push = (corners[(first[0] + window) % 4] - now)[:, None]
        start = position.gather(1, poked)
        pokes = torch.cat([start, start + push, torch.ones_like(start[..., :1])], dim=-1)
        return pokes, pokes[..., :2].abs().amax(-1) <= 1

    return lead


def _draw_speed(axes: Axes, motion: LongMotion, free: LongMotion, bodies: Tensor) -> None:
    for found, colour in ((motion, BLUE), (free, VERMILION)):
        body = found.tracks[0, 0, bodies[0] >= 0] * CANVAS / 2
        time = np.arange(1, body.shape[1]) / found.fps
        axes.plot(time, body.diff(dim=1).norm(dim=-1).mean(0) * found.fps, color=colour, linewidth=1.4)
    for seam in motion.seams:
        axes.axvline(seam / motion.fps, color=GREY, linestyle=":", linewidth=1)
    axes.set(xlabel="time (s); dotted: seams", ylabel="mean speed (px/s)", title="the scene above", ylim=(0, None))


def _headline(figure: Figure, page: Page, lines: list[tuple[str, dict[str, float], str, int]]) -> Figure:
    say = lambda values, unit, digits: ", ".join(f"{name} {value:.{digits}f} {unit}" for name, value in values.items())
    said = "\n".join(f"{what}: {say(*rest)}" for what, *rest in lines)
    figure.suptitle(f"{said}.  {page.scenes} scenes", fontsize=10, x=0.01, ha="left")
    return figure


def _legend(figure: Figure, entries: list[tuple[str, str, str]]) -> None:
    keys = [Line2D([], [], color=colour, linestyle=style, linewidth=2, label=name) for name, colour, style in entries]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))


def _crop(panels: np.ndarray, xy: Tensor, place: tuple[int, int], margin: float = 0.12) -> None:
    """Shows the square of the frame that holds the positions (..., 2), and a margin in units of half a frame."""
    flat = xy.reshape(-1, 2).clamp(-1, 1)
    low, high = flat.amin(0), flat.amax(0)
    half = ((high - low).max() / 2 + margin).clamp_max(1.0)
    centre = torch.minimum(torch.maximum((low + high) / 2, half - 1), 1 - half)
    left, top = to_pixels(centre - half, *place).tolist()
    right, bottom = to_pixels(centre + half, *place).tolist()
    for panel in panels:
        panel.set(xlim=(left, right), ylim=(bottom, top))


def _time_colours(count: int) -> np.ndarray:
    import matplotlib

    return matplotlib.colormaps[TIME_MAP](np.linspace(0, 0.95, count))


def _time_bar(figure: Figure, axes: np.ndarray, num_frames: int) -> None:
    scale = ScalarMappable(Normalize(0, num_frames - 1), ListedColormap(_time_colours(256)))
    figure.colorbar(scale, ax=list(axes.flat), shrink=0.75, aspect=25).set_label("time (frames)")
