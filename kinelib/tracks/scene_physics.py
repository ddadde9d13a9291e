"""Scene families that obey laws: bounce, roll, maze, billiards.

Motion is computed in closed form (ballistic arcs, rolling without slipping, elastic collisions found event by event), so
that the laws hold to rounding error at any number of frames. As in `scene_families`, `look` draws the first frame and
`future` what then happens.

Shapes: n scenes, T frames; y points down.
"""

from __future__ import annotations

import numpy as np

from kinelib.tracks.scene_looks import FELT, STEPS, Chance, at_times, choose, compass, smooth, stack, still
from kinelib.tracks.scene_parts import Array, Pose, World, box, disc, unit

GRAVITY = 11.0  # units per clip squared
CUSHION = 0.97  # where billiard balls turn back
EVENTS = 10  # collisions of a scene that are looked for
GATES, WALLS = 2, 2


def bounce(look: Chance, future: Chance, time: Array) -> World:
    """A ball leaves a launcher, falls and bounces on the floor with a restitution that the picture does not tell."""
    names, (paint,) = look.paints(1)
    radius, floor = look.uniform(0.13, 0.19), look.uniform(0.55, 0.8)
    aside, rise = look.sign(), look.uniform(-0.9, 0.5)
    speed = look.uniform(0.6, 1.0)
    start = stack(-aside * look.uniform(0.25, 0.6), floor - radius - look.uniform(0.6, 0.85))
    faster = future.uniform(0.65, 1.3)
    bouncy = future.flag(0.5)
    restitution = np.where(bouncy, future.uniform(0.75, 0.88), future.uniform(0.3, 0.5))
    across, down = aside * speed * faster, rise * speed * faster
    drop = floor - radius - start[:, 1]
    height = _bounces(time, drop, down, restitution)
    centre = np.stack([start[:, :1] + across[:, None] * time, (floor - radius)[:, None] - height], -1)
    spin = future.uniform(0.5, 1.0)[:, None] * (across / radius)[:, None] * time
    pose = Pose(centre.astype(np.float32), (look.angle()[:, None] + spin).astype(np.float32))
    aim = np.arctan2(rise, aside)
    barrel = still(time, start, aim).carry(stack(-radius * 0.9 - 0.12, 0))
    ground = still(time, stack(0, floor + 1.5))
    parts = [
        box("floor", ground, 3, 1.5, (95, 80, 70), look.texture(0.8), corner=0, actor=False),
        box("launcher", barrel, 0.17, radius * 0.8, (60, 60, 68), look.texture(0.6), corner=0.02, taper=-0.45, actor=False),
        disc("ball", pose, radius, paint, look.texture(1.3)),
    ]
    modes = choose(bouncy, "dull", "bouncy")
    captions = future.words(
        ("the {c} ball is thrown {w} and {b}", "a {c} ball flies {w} and {b}", "a {c} ball shot {w} {b}"),
        c=names[0],
        w=compass(aim),
        b=choose(bouncy, "hardly bounces", "bounces high"),
    )
    facts = {"radius": radius, "floor": floor, "restitution": restitution.astype(np.float32)}
    return World(parts, 2, modes, captions, look.ground(), unit(aim), facts)


def _bounces(time: Array, drop: Array, down: Array, restitution: Array) -> Array:
    """(n, T) heights above the floor of balls that start at height `drop` with downward speed `down`."""
    impact = np.sqrt(down**2 + 2 * GRAVITY * drop)  # speed at the first contact
    contact = (impact - down) / GRAVITY
    height = drop[:, None] - down[:, None] * time - 0.5 * GRAVITY * time**2
    up = restitution * impact
    for _ in range(12):
        since = time - contact[:, None]
        height = np.where(since >= 0, up[:, None] * since - 0.5 * GRAVITY * since**2, height)
        contact, up = contact + 2 * up / GRAVITY, restitution * up
    return np.where(time >= contact[:, None], 0, np.maximum(height, 0))


def roll(look: Chance, future: Chance, time: Array) -> World:
    """A spoked wheel rolls without slipping on an incline: down fast, down slowly, or up first and back."""
    names, paints = look.paints(2)
    radius, slope = look.uniform(0.18, 0.26), look.uniform(12, 26) * np.pi / 180
    aside = look.sign()  # +1: downhill is to the right
    down = unit(slope) * stack(aside, 1)
    normal = stack(aside * np.sin(slope), -np.cos(slope))  # out of the ground
    contact = stack(look.uniform(-0.12, 0.12), look.uniform(0.1, 0.4)) - down * look.uniform(0.1, 0.5)[:, None]
    start = contact + normal * radius[:, None]
    mode = future.pick(3)
    length, faster = future.uniform(0.75, 1.05), future.uniform(0.85, 1.15)
    fast = length[:, None] * (0.3 * time + 0.7 * time**2)
    slow = 0.45 * faster[:, None] * (0.6 * time + 0.4 * time**2)
    back = faster[:, None] * (1.5 * time**2 - 1.25 * time)  # uphill until t = 0.42, then down
    way = np.select([(mode == 0)[:, None], (mode == 1)[:, None]], [fast, slow], back).astype(np.float32)
    angle = look.angle()[:, None] + (aside / radius)[:, None] * way
    pose = Pose((start[:, None] + way[..., None] * down[:, None]).astype(np.float32), angle.astype(np.float32))
    tilt = slope * aside
    bank = still(time, contact - normal * 2, tilt)
    texture = look.texture()
    parts = [
        box("incline", bank, 4, 2, (100, 88, 70), look.texture(0.9), corner=0, actor=False),
        disc("tyre", pose, radius, (40, 40, 44), texture),
        disc("wheel", pose, radius - 0.045, paints[0], texture),
    ]
    for quarter in (0, 1):
        spoke = pose.carry(np.zeros((1, 2)), quarter * np.pi / 2)
        shade = paints[1] * (1 - 0.35 * quarter)
        parts.append(box(f"spoke {quarter + 1}", spoke, radius - 0.05, 0.028, shade, texture))
    captions = future.words(
        ("the {c} wheel rolls {how} the slope", "a {c} wheel rolls {how} a hill", "a wheel in {c} rolls {how} the incline"),
        c=names[0],
        how=choose(mode, "quickly down", "slowly down", "up and then back down"),
    )
    modes = choose(mode, "down-fast", "down-slow", "up-and-back")
    return World(parts, 2, modes, captions, look.ground(), down, {"radius": radius})


def maze(look: Chance, future: Chance, time: Array) -> World:
    """An agent goes to a flag behind one or two walls, through one of the gates of each; it never touches a wall."""
    n = look.n
    names, paints = look.paints(2)
    radius, thick = look.uniform(0.12, 0.15), 0.045
    quarter = look.pick(4)  # the way from the agent to the flag: right, down, left, up
    two = look.flag(0.5)
    walls = [np.where(two, -0.3, look.uniform(-0.15, 0.15)), np.full(n, 0.32)]
    begin, goal = stack(-0.76, look.uniform(-0.5, 0.5)), stack(0.76, look.uniform(-0.5, 0.5))
    width = radius + 0.08
    gates = [np.stack([look.uniform(-0.62, -0.3), look.uniform(0.3, 0.62)], -1) for _ in range(WALLS)]
    taken = [future.pick(GATES) for _ in range(WALLS)]
    through = [np.take_along_axis(gates[k], taken[k][:, None], 1)[:, 0] for k in range(WALLS)]
    # The way is y(x): level wherever the agent is beside a wall, a smooth step in between; walked at even speed.
    x = np.linspace(0, 1, STEPS + 1) * (goal - begin)[:, :1] + begin[:, :1]
    clear = (radius + thick + 0.02)[:, None]
    first, second = walls[0][:, None], walls[1][:, None]
    ramp = lambda low, high: smooth((x - low) / (high - low))
    y = begin[:, 1:] + (through[0][:, None] - begin[:, 1:]) * ramp(begin[:, :1], first - clear)
    onward = np.where(two, through[1], goal[:, 1])[:, None]
    y = y + (onward - through[0][:, None]) * ramp(first + clear, np.where(two[:, None], second - clear, goal[:, :1]))
    y = y + np.where(two[:, None], (goal[:, 1:] - onward) * ramp(second + clear, goal[:, :1]), 0)
    walked = np.concatenate([np.zeros((n, 1)), np.cumsum(np.hypot(np.diff(x), np.diff(y)), 1)], 1)
    walked /= walked[:, -1:]
    reach = np.where(future.flag(0.75), 0.95, future.uniform(0.7, 0.95))
    wanted = reach[:, None] * future.progress(np.linspace(0, 1, STEPS + 1))
    # Even speed along the curve: invert the walked length by counting, then interpolate inside the interval.
    before = np.clip((walked[:, None, :] <= wanted[:, :, None]).sum(-1) - 1, 0, STEPS - 1)
    low, high = (np.take_along_axis(walked, before + k, 1) for k in (0, 1))
    part = (wanted - low) / (high - low)
    mix = lambda curve: (1 - part) * np.take_along_axis(curve, before, 1) + part * np.take_along_axis(curve, before + 1, 1)
    path = np.stack([mix(x), mix(y)], -1).astype(np.float32)
    turn = (quarter * np.pi / 2).astype(np.float32)
    forward = unit(turn)
    across = np.stack([-forward[:, 1], forward[:, 0]], -1)
    place = lambda xy: xy[..., :1] * _like(forward, xy) + xy[..., 1:] * _like(across, xy)
    centre = at_times(place(path), time)
    pose = Pose(centre, np.repeat(turn[:, None], len(time), 1))
    texture, parts, boxes = look.texture(0.8), [], []
    for index in range(WALLS):
        there = None if index == 0 else two
        ends = [np.full(n, -1.6), *(gates[index][:, k] + s * width for k in range(GATES) for s in (-1, 1)), np.full(n, 1.6)]
        for low, high in zip(ends[::2], ends[1::2], strict=True):
            middle, half = stack(walls[index], (low + high) / 2), stack(thick, (high - low) / 2)
            stand = still(time, place(middle), turn)
            parts.append(box("wall", stand, thick, half[:, 1], (75, 45, 40), texture, actor=False, present=there))
            corners = np.stack([place(middle - half), place(middle + half)], 1)
            segment = np.concatenate([corners.min(1), corners.max(1)], -1)
            boxes.append(np.where(there[:, None], segment, np.nan) if index else segment)
    flag = place(goal) + np.float32([0.0, -0.05])
    plain, cloth = look.texture(0.3), still(time, flag + np.float32([0.09, -0.08]))
    parts += [
        box("pole", still(time, flag), 0.025, 0.15, (40, 35, 30), plain, actor=False),
        box("flag", cloth, 0.09, 0.08, paints[1], plain, corner=0, taper=1, actor=False),
        box("agent", pose, radius, radius, paints[0], look.texture(), corner=radius * 0.8),
        box("eye", pose.carry(stack(radius * 0.45, 0)), 0.04, 0.07, (245, 245, 245), plain, corner=0.035),
    ]
    side = [choose(t, "left", "right") for t in taken]
    modes = [f"{a}-{b}" if t else a for a, b, t in zip(*side, two, strict=True)]
    route = [f"the {a} gate and then the {b} gate" if t else f"the {a} gate" for a, b, t in zip(*side, two, strict=True)]
    captions = future.words(
        (
            "the {c} robot goes {w} through {r}",
            "a {c} robot takes {r} to the {f} flag",
            "through {r} the {c} robot walks {w}",
        ),
        c=names[0],
        f=names[1],
        w=compass(turn),
        r=route,
    )
    facts = {"walls": np.stack(boxes, 1).astype(np.float32), "radius": radius}
    return World(parts, len(parts) - 2, modes, captions, look.ground(), forward, facts)


def _like(vector: Array, points: Array) -> Array:
    """(n, 2) broadcast against (n, ..., 2)."""
    return vector.reshape(len(vector), *[1] * (points.ndim - 2), 2)


def billiards(look: Chance, future: Chance, time: Array) -> World:
    """A cue strikes one of three balls; how hard, and a little to which side, decides whom it meets."""
    names, paints = look.paints(3)
    radius, aim = look.uniform(0.13, 0.17), look.angle()
    start = look.start(0.6 * unit(aim), 0.6)
    gap = look.uniform(0.48, 0.62)
    # The second ball lies about where the cue points, the third behind it to one side.
    at = lambda origin, angle, length: origin + unit(angle) * length[:, None]
    second = at(start, aim + look.uniform(-0.35, 0.35), gap)
    third = at(second, aim + look.sign() * look.uniform(0.6, 1.7), look.uniform(0.42, 0.62))
    limit = (CUSHION - radius - 0.02)[:, None]
    places = [np.clip(ball, -limit, limit) for ball in (start, second, third)]
    # Pushing a ball back into the frame may push it into another one: then it stays away from the scene.
    apart = lambda a, b: np.linalg.norm(places[a] - places[b], axis=-1) > 2 * radius + 0.03
    there = [np.ones(look.n, bool), apart(0, 1), apart(0, 2) & (apart(1, 2) | ~apart(0, 1))]
    speed, course = future.uniform(0.8, 2.6), aim + future.uniform(-24, 24) * np.pi / 180
    drag = future.uniform(0.8, 1.8)[:, None]
    # Under viscous drag all speeds fall alike, so collisions stay elastic in a clock that runs down.
    clock = (1 - np.exp(-drag * time)) / drag
    velocity = np.zeros((look.n, 3, 2))
    velocity[:, 0] = speed[:, None] * unit(course)
    centres, hits = _collide(np.stack(places, 1), velocity, radius, np.stack(there, 1), clock)
    balls = []
    for index in range(3):
        pose = Pose(centres[:, index], np.repeat(look.angle()[:, None], len(time), 1))
        name = f"ball {index + 1}"
        balls.append(disc(name, pose, radius, paints[index], look.texture(1.3), present=there[index]))
    recoil = smooth(time * 2.5)[..., None] * (-0.12 * unit(aim))[:, None]
    back = places[0] - unit(aim) * (radius + 0.3)[:, None]
    stick = Pose((back[:, None] + recoil).astype(np.float32), np.repeat(aim[:, None], len(time), 1))
    cue = box("cue", stick, 0.3, 0.045, (170, 115, 60), look.texture(0.6), taper=0.5)
    outcome = np.minimum(hits, 2)
    captions = future.words(
        (
            "the cue strikes the {c} ball {w} and it {what}",
            "a {c} ball is hit {w}; it {what}",
            "the {c} ball rolls {w} and {what}",
        ),
        c=names[0],
        w=compass(aim),
        what=[("meets no other ball", "knocks a ball away", "sets off several collisions")[k] for k in outcome],
    )
    modes = choose(outcome, "miss", "one-hit", "chain")
    bodies = np.where(np.stack(there, 1)[..., None, None], centres, np.nan).astype(np.float32)
    return World([cue, *balls], 1, modes, captions, look.ground(FELT), unit(aim), {"bodies": bodies, "radius": radius})


def _collide(places: Array, velocity: Array, radius: Array, there: Array, clock: Array) -> tuple[Array, Array]:
    """Moves equal balls (n, K, 2) with elastic collisions between each other and with the cushions.

    Returns:
        centres (n, K, T, 2) at the clock's times (n, T), and the number of ball-to-ball collisions (n,) within them.
    """
    n, count = places.shape[:2]
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    places, now, hits = places.astype(np.float64), np.zeros(n), np.zeros(n, int)
    centres = np.repeat(places[:, :, None], clock.shape[1], 2)
    limit, end = (CUSHION - radius)[:, None, None], clock[:, -1]
    for _ in range(EVENTS):
        later = clock - now[:, None]
        moved = places[:, :, None] + velocity[:, :, None] * later[:, None, :, None]
        centres = np.where((later >= 0)[:, None, :, None], moved, centres)
        # Time to the next cushion, for every ball and axis.
        with np.errstate(divide="ignore", invalid="ignore"):
            wall = np.where(velocity != 0, (np.sign(velocity) * limit - places) / velocity, np.inf)
        waits = [np.where(there[:, :, None], np.maximum(wall, 0), np.inf).reshape(n, -1)]
        for a, b in pairs:
            gap, closing = places[:, a] - places[:, b], velocity[:, a] - velocity[:, b]
            toward, square = (gap * closing).sum(-1), (closing**2).sum(-1)
            root = toward**2 - square * ((gap**2).sum(-1) - 4 * radius**2)
            meet = (toward < 0) & (root > 0) & there[:, a] & there[:, b]
            wait = (-toward - np.sqrt(np.maximum(root, 0))) / np.where(square > 0, square, 1)
            waits.append(np.where(meet, np.maximum(wait, 0), np.inf)[:, None])
        waits = np.concatenate(waits, 1)
        event, wait = waits.argmin(1), waits.min(1)
        live = now + wait < end
        step = np.where(live, wait, 0)
        places, now = places + velocity * step[:, None, None], now + step
        cushions = 2 * count
        ball, axis = np.divmod(np.minimum(event, cushions - 1), 2)
        turned = np.flatnonzero(live & (event < cushions))
        velocity[turned, ball[turned], axis[turned]] *= -1
        for index, (a, b) in enumerate(pairs):
            rows = np.flatnonzero(live & (event == cushions + index))
            normal = places[rows, a] - places[rows, b]
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
            # Equal masses swap their velocities along the line between the centres.
            swap = ((velocity[rows, a] - velocity[rows, b]) * normal).sum(-1, keepdims=True) * normal
            velocity[rows, a] -= swap
            velocity[rows, b] += swap
            hits[rows] += 1
    return centres.astype(np.float32), hits
