"""Scene families of things that steer, turn or bend: vehicle, rigid, arm, orbit, spinner, camera, deform.

Every family is a function of two sources of chance. `look` draws what the first frame shows: it fixes what can move and,
mostly, which way. `future` draws what then happens: how far, how fast, which turn. Pictures of the start therefore say
nothing about the draw of the future, and one start can be continued in many ways.

Shapes: n scenes, T frames; a local x axis points forward; angles are clockwise on the screen, y down.
"""

from __future__ import annotations

import numpy as np

from kinelib.tracks.scene_looks import ASPHALT, Chance, choose, compass, constant, drive, smooth, stack, still
from kinelib.tracks.scene_parts import Array, Part, Pose, Warp, World, box, disc, unit

DEGREE = np.pi / 180
SENSE = {-1: "counter-clockwise", 1: "clockwise"}


def vehicle(look: Chance, future: Chance, time: Array) -> World:
    """Cars seen from above, with a windscreen and headlights in front, that drive on and turn left, right or not."""
    names, paints = look.paints(2)
    heading = look.angle()
    start = look.start(0.75 * unit(heading), 0.58)
    second = look.flag(0.3)
    # The second car starts in the part of the frame that is opposite to the first.
    away = np.arctan2(-start[:, 1], -start[:, 0]) + look.uniform(-0.5, 0.5)
    other = np.clip(start + unit(away) * look.uniform(0.9, 1.1)[:, None], -0.78, 0.78)
    turns, parts = [], []
    for index, (place, course, there) in enumerate([(start, heading, None), (other, look.angle(), second)]):
        mode = future.pick(3, (0.36, 0.28, 0.36)) - 1  # left, straight, right
        turn = np.where(mode == 0, future.uniform(-6, 6), mode * future.uniform(50, 100)) * DEGREE
        length = 0.75 * future.uniform(0.7, 1.3)
        way = drive(time, place, course, length, turn.astype(np.float32), future.uniform(0, 0.3), future.uniform(0, 1))
        turns.append(mode)
        parts += _car(look, way, paints[index], there)
    turning = [choose(mode + 1, "turns left", "goes straight on", "turns right") for mode in turns]
    captions = future.words(
        (
            "the {colour} car drives {way} and {turn}",
            "a {colour} car heading {way} {turn}",
            "a {colour} car moves {way}, then {turn}",
        ),
        colour=names[0],
        way=compass(heading),
        turn=turning[0],
    )
    captions = [
        f"{caption} while the {colour} car {turn}" if there else caption
        for caption, colour, turn, there in zip(captions, names[1], turning[1], second, strict=True)
    ]
    modes = choose(turns[0] + 1, "turn-left", "straight", "turn-right")
    return World(parts, 2, modes, captions, look.ground(ASPHALT), unit(heading))


def _car(look: Chance, pose: Pose, paint: Array, there: Array | None) -> list[Part]:
    long, wide = look.uniform(0.25, 0.34), look.uniform(0.14, 0.18)
    dark, glass, lamp = (25, 25, 28), (150, 200, 225), (255, 240, 160)
    plain = look.texture(0.3)
    at = lambda along: pose.carry(stack(long * along, 0))
    return [
        # Both axles are one dark bar each, of which the body leaves two wheels to be seen.
        box("rear wheels", at(-0.6), 0.08, wide + 0.045, dark, plain, corner=0.02, present=there),
        box("front wheels", at(0.55), 0.08, wide + 0.045, dark, plain, corner=0.02, present=there),
        box("body", pose, long, wide, paint, look.texture(), corner=0.5 * wide, present=there),
        box("windscreen", at(0.3), 0.055, wide * 0.8, glass, plain, corner=0.02, present=there),
        box("headlights", at(0.88), 0.03, wide * 0.7, lamp, plain, corner=0.02, present=there),
    ]


def rigid(look: Chance, future: Chance, time: Array) -> World:
    """A body with an arrow painted on it that slides along the arrow and turns one way, the other way, or hardly."""
    names, (paint,) = look.paints(1)
    body_angle, arrow = look.angle(), look.angle()
    heading = body_angle + arrow
    start = look.start(0.65 * unit(heading))
    long, wide = look.uniform(0.22, 0.34), look.uniform(0.17, 0.24)
    round_off = look.uniform(0.05, 1) * wide
    compound = look.flag(0.4)
    mode = future.pick(3, (0.4, 0.2, 0.4)) - 1
    turn = np.where(mode == 0, future.uniform(-5, 5), mode * future.uniform(35, 150)) * DEGREE
    progress, spin = future.progress(time)[..., None], future.progress(time)
    centre = start[:, None] + progress * (0.65 * future.uniform(0.6, 1.35)[:, None] * unit(heading))[:, None]
    pose = Pose(centre.astype(np.float32), (body_angle[:, None] + turn[:, None] * spin).astype(np.float32))
    light = paint.mean(-1, keepdims=True) > 120
    ink = np.where(light, np.float32([30, 30, 40]), np.float32([250, 250, 245]))
    texture, plain = look.texture(), look.texture(0.2)
    bar = pose.carry(stack(look.uniform(-0.1, 0.1), 0))
    shaft, head = pose.carry(-0.03 * unit(arrow), arrow), pose.carry(0.1 * unit(arrow), arrow)
    parts = [
        box("bar", bar, wide * 0.7, long * 1.05, paint, texture, present=compound),
        box("body", pose, long, wide, paint, texture, corner=round_off),
        box("shaft", shaft, 0.11, 0.035, ink, plain),
        box("head", head, 0.07, 0.1, ink, plain, taper=1),
    ]
    how = choose(mode + 1, "while turning counter-clockwise", "without turning", "while turning clockwise")
    captions = future.words(
        (
            "the {colour} block slides {way} {how}",
            "a {colour} shape moves {way} {how}",
            "{how}, the {colour} body goes {way}",
        ),
        colour=names[0],
        way=compass(heading),
        how=how,
    )
    modes = choose(mode + 1, "slide-turn-ccw", "slide", "slide-turn-cw")
    return World(parts, 1, modes, captions, look.ground(), unit(heading))


def arm(look: Chance, future: Chance, time: Array) -> World:
    """An arm of two or three links on a base; mostly one of its joints turns."""
    n = look.n
    names, paints = look.paints(2)
    three = look.flag(0.5)
    lengths = [look.uniform(0.36, 0.48), look.uniform(0.3, 0.42), look.uniform(0.24, 0.34)]
    base = stack(look.uniform(-0.45, 0.45), look.uniform(0.35, 0.75))
    rest = [look.uniform(-125, -55) * DEGREE, look.uniform(-75, 75) * DEGREE, look.uniform(-75, 75) * DEGREE]
    mover = (future.uniform(0, 1) * np.where(three, 3, 2)).astype(int)
    sense = future.sign()
    amount = sense * future.uniform(40, 95) * DEGREE
    # A third of the arms swing there and back; the other joints give way a little.
    back = future.flag(0.33)[:, None]
    curve = np.where(back, np.sin(np.pi * time) ** 2, future.progress(time))
    angle, links, discs, joints = 0.0, [], [], [still(time, base).centre]
    texture, width = look.texture(), look.uniform(0.065, 0.085)
    for index, length in enumerate(lengths):
        there = None if index < 2 else three
        swing = np.where(mover == index, amount, future.uniform(-10, 10) * DEGREE)
        angle = (angle + rest[index][:, None] + swing[:, None] * curve).astype(np.float32)
        pose = Pose(joints[-1], angle)
        middle = pose.carry(stack(length / 2, 0))
        name, dark = str(index + 1), (40, 40, 45)
        links.append(box(f"link {name}", middle, length / 2 + width, width, paints[0], texture, corner=width, present=there))
        discs.append(disc(f"joint {name}", pose, width * 0.62, dark, look.texture(0.3), present=there))
        joints.append(pose.carry(stack(length, 0)).centre)
    tip = Pose(np.where(three[:, None, None], joints[3], joints[2]), np.where(three[:, None], angle, links[1].pose.angle))
    hand = box("hand", tip, width * 0.8, width * 1.5, paints[1], look.texture(), corner=width * 0.3)
    under = still(time, base + np.float32([0, 0.1]))
    foot = box("base", under, 0.2, 0.1, (70, 72, 80), look.texture(0.5), corner=0.03, actor=False)
    which = choose(mover, "shoulder", "elbow", "wrist")
    captions = future.words(
        (
            "the {colour} arm turns its {joint} {sense}{back}",
            "a {colour} robot arm swings {sense} about the {joint}{back}",
            "the {joint} of the {colour} arm rotates {sense}{back}",
        ),
        colour=names[0],
        joint=which,
        sense=[SENSE[int(s)] for s in sense],
        back=choose(back[:, 0], "", " and back"),
    )
    modes = [f"{joint}-{'cw' if s > 0 else 'ccw'}" for joint, s in zip(which, sense, strict=True)]
    joints[3] = np.where(three[:, None, None], joints[3], np.nan)
    facts = {
        "joints": np.stack(joints, 1),
        "joint_lengths": stack(lengths[0], lengths[1], np.where(three, lengths[2], np.nan)),
    }
    parts = [foot, links[2], links[1], links[0], hand, discs[2], discs[1], discs[0]]
    return World(parts, 3, modes, captions, look.ground(), constant(n, 0, 0), facts)


def orbit(look: Chance, future: Chance, time: Array) -> World:
    """One or two comets around a star; the tail trails behind the comet, and is wrong in 15 of 100 scenes."""
    names, paints = look.paints(2)
    radius, first = look.uniform(0.42, 0.58), look.angle()
    star = look.uniform(-0.22, 0.22, 2)
    tail = look.sign()
    sense = tail * future.sign(0.85)
    parts = [disc("star", still(time, star), 0.16, (250, 225, 120), look.texture(), actor=False)]
    two = look.flag(0.4)
    for index, there in enumerate((None, two)):
        begin = first + index * look.uniform(2.2, 4.1)
        swept = (sense * future.uniform(70, 220) * DEGREE)[:, None] * future.progress(time)
        angle = (begin[:, None] + swept).astype(np.float32)
        pose = Pose(star[:, None] + radius[:, None, None] * unit(angle), angle + np.float32(np.pi / 2))
        size = look.uniform(0.12, 0.17)
        # In the comet's frame x is the clockwise tangent, so a clockwise comet has its tail at negative x; the wedge's thin
        # end is its right end and must point away from the comet.
        trail = pose.carry(stack(-tail * (size + 0.1), 0), np.where(tail > 0, np.pi, 0).astype(np.float32))
        pale = paints[index] * 0.5 + 120
        parts += [
            box("tail", trail, 0.2, size * 0.75, pale, look.texture(0.5), taper=0.9, present=there),
            disc("comet", pose, size, paints[index], look.texture(), present=there),
        ]
    comets = [
        f"a {one} and a {other} comet go" if both else f"a {one} comet goes"
        for one, other, both in zip(*names, two, strict=True)
    ]
    captions = future.words(
        (
            "the {colour} comet orbits the star {sense}",
            "a {colour} ball circles {sense} around the yellow star",
            "{comets} {sense} around the star",
        ),
        colour=names[0],
        sense=[SENSE[int(s)] for s in sense],
        comets=comets,
    )
    clockwise = unit(first + np.float32(np.pi / 2))
    modes = choose(sense > 0, "ccw", "cw")
    return World(parts, 2, modes, captions, look.ground(), clockwise * tail[:, None], {"radius": radius})


def spinner(look: Chance, future: Chance, time: Array) -> World:
    """A windmill of two to four swept blades, which mostly turns the way its blades lean."""
    n = look.n
    names, paints = look.paints(2)
    hub, lean = stack(look.uniform(-0.35, 0.35), look.uniform(-0.35, 0.25)), look.sign()
    sense = lean * future.sign(0.85)
    amount = sense * future.uniform(50, 330) * DEGREE
    angle = (look.angle()[:, None] + amount[:, None] * future.progress(time)).astype(np.float32)
    pose = Pose(still(time, hub).centre, angle)
    blades, length = look.pick(3) + 2, look.uniform(0.42, 0.54)
    upright = still(time, hub + np.float32([0, 1]), -np.pi / 2)
    parts = [box("tower", upright, 1, 0.11, (95, 85, 80), look.texture(0.6), corner=0, taper=0.4, actor=False)]
    texture = look.texture()
    for index in range(4):
        spoke = (2 * np.pi * index / blades).astype(np.float32)
        # A blade is a wedge with its broad end out, turned off the spoke towards the side it leans to.
        blade = pose.carry(unit(spoke + 0.16 * lean) * (length * 0.53)[:, None], spoke + np.pi + 0.5 * lean)
        look_of = {"corner": 0.02, "taper": 0.7, "present": index < blades}
        parts.append(box(f"blade {index + 1}", blade, length * 0.5, 0.13, paints[index % 2], texture, **look_of))
    parts.append(disc("hub", pose, 0.07, (45, 45, 50), look.texture(0.5)))
    captions = future.words(
        (
            "the {colour} and {other} windmill turns {sense}",
            "{count} {colour} and {other} blades rotate {sense}",
            "a {colour} and {other} fan spins {sense}",
        ),
        colour=names[0],
        other=names[1],
        sense=[SENSE[int(s)] for s in sense],
        count=choose(blades - 2, "two", "three", "four"),
    )
    modes = choose(sense > 0, "ccw", "cw")
    return World(parts, 5, modes, captions, look.ground(), constant(n, 0, 0), {"radius": length})


def camera(look: Chance, future: Chance, time: Array) -> World:
    """A world that stands still; only the camera, which `scenes` moves, is in motion."""
    names, paints = look.paints(4)
    parts, turn = [], look.angle()
    balls = [look.flag(0.5) for _ in range(4)]
    for index, ball in enumerate(balls):
        place = unit(turn + index * np.pi / 2 + look.uniform(-0.4, 0.4)) * look.uniform(0.35, 0.75)[:, None]
        long = look.uniform(0.16, 0.26)
        wide = np.where(ball, long, look.uniform(0.12, 0.2))
        pose, texture = still(time, place, look.angle()), look.texture()
        there = None if index < 2 else look.flag(0.5)
        corner = np.where(ball, long, 0.03)
        parts.append(box(f"thing {index + 1}", pose, long, wide, paints[index], texture, corner=corner, present=there))
    thing = lambda index: [f"a {c} {'ball' if b else 'box'}" for c, b in zip(names[index], balls[index], strict=True)]
    things = [f"{one} and {other}" for one, other in zip(thing(0), thing(1), strict=True)]
    return World(parts, 0, [""] * look.n, things, look.ground(), constant(look.n, 0, 0))


def deform(look: Chance, future: Chance, time: Array) -> World:
    """Soft things: a flag on its pole, a crawling snake, a blob."""
    names, (paint,) = look.paints(1)
    kind, mode = look.pick(3, (0.3, 0.4, 0.3)), future.pick(3)
    flag, snake, blob = kind == 0, kind == 1, kind == 2
    of_kind = lambda a, b, c: np.select([flag, snake], [a, b], c).astype(np.float32)
    heading = of_kind(look.uniform(-0.2, 0.2), look.angle(), look.angle())
    start = np.where(snake[:, None], look.start(0.35 * unit(heading), 0.45), look.uniform(-0.3, 0.3, 2))
    long = of_kind(look.uniform(0.34, 0.44), look.uniform(0.42, 0.52), look.uniform(0.26, 0.36))
    wide = of_kind(look.uniform(0.22, 0.3), look.uniform(0.085, 0.11), long)
    progress = future.progress(time)
    crawl = np.where(snake, future.uniform(0.25, 0.5), 0)[:, None] * progress
    centre = start[:, None] + crawl[..., None] * unit(heading)[:, None]
    side = (mode - 1)[:, None]  # -1, 0, 1
    wobble = np.sin(np.pi * time * (1 + future.pick(2))[:, None])
    stretch = np.where(blob[:, None], look.uniform(-0.2, 0.2)[:, None], 0)
    # Blobs lengthen (mode 0), shorten (1) or wobble (2).
    change = np.where(side == 1, 0.45 * wobble, np.where(side == 0, -1, 1) * future.uniform(0.4, 0.6)[:, None] * progress)
    stretch = stretch + np.where(blob[:, None], change, 0)
    # Stretching one axis narrows the other, so that the area stays.
    scale = np.stack([np.exp(stretch), np.exp(-stretch)], -1).astype(np.float32)
    # Flags calm down (mode 0) or flap harder (1, 2); snakes bend left (0), stay (1) or bend right (2).
    flap = np.where(mode == 0, 0.06, future.uniform(0.14, 0.22)) - 0.08
    swing = of_kind(0.08, 0.07, 0)[:, None] + np.where(flag, flap, 0)[:, None] * smooth(3 * time)
    travel = of_kind(future.uniform(2, 5), future.uniform(3, 6), 0)[:, None] * np.pi / 2 * progress
    bend = future.uniform(0.8, 1.4)[:, None] * side * np.where(snake[:, None], progress, 0)
    phase = look.angle()[:, None] - travel
    wave = of_kind(look.uniform(6, 9), look.uniform(7, 10), 1)
    warp = Warp(bend.astype(np.float32), swing.astype(np.float32), phase.astype(np.float32), wave, flag, long)
    pose = Pose(centre.astype(np.float32), np.repeat(heading[:, None], len(time), 1), scale)
    body = box("body", pose, long, wide, paint, look.texture(1.3), corner=of_kind(0.02, wide, long), warp=warp)
    there = {"offset": stack(long - 0.08, 0), "present": snake}
    head = box("head", pose, 0.11, 0.12, paint * 0.6, look.texture(0.6), corner=0.11, warp=warp, **there)
    mast = still(time, start, heading).carry(stack(-long, 0)).carry(constant(look.n, 0, 0.75))
    pole = box("pole", mast, 0.04, 1.1, (80, 60, 45), look.texture(0.4), corner=0.03, actor=False, present=flag)
    sentences = {
        "flag-gentle": ("the {c} flag waves gently", "a {c} flag flutters a little"),
        "flag-strong": ("the {c} flag waves strongly", "a {c} flag flaps in a strong wind"),
        "snake-left": ("the {c} snake crawls {w} and bends left", "a {c} worm creeps {w}, curling to its left"),
        "snake-straight": ("the {c} snake crawls {w}", "a {c} worm creeps straight {w}"),
        "snake-right": ("the {c} snake crawls {w} and bends right", "a {c} worm creeps {w}, curling to its right"),
        "blob-lengthen": ("the {c} blob grows in one direction", "a {c} blob stretches out"),
        "blob-widen": ("the {c} blob is squashed", "a {c} blob shortens and swells sideways"),
        "blob-wobble": ("the {c} blob wobbles", "a {c} jelly wobbles on the spot"),
    }
    ways = (
        ("flag-gentle", "flag-strong", "flag-strong"),
        ("snake-left", "snake-straight", "snake-right"),
        ("blob-lengthen", "blob-widen", "blob-wobble"),
    )
    modes = [ways[k][m] for k, m in zip(kind, mode, strict=True)]
    which = future.pick(2)
    words = zip(modes, which, names[0], compass(heading), strict=True)
    captions = [sentences[m][k].format(c=colour, w=way) for m, k, colour, way in words]
    return World([pole, body, head], 1, modes, captions, look.ground(), unit(heading) * snake[:, None])
