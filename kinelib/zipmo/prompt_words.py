"""What prompts ask about scenes, and the sentences they ask it in that the planner never saw in training.

Three wordings of a prompt: "generator", the caption of the scene; "free", a sentence an option written beside the generator;
"blind", four an option written from a description of the scenes by someone who had seen neither the captions nor the other
wordings that training uses (`wordings`). {c} stands for the colour of what moves.
"""

from __future__ import annotations

import re
from typing import NamedTuple

WORDINGS = ("generator", "free", "blind")

# A paragraph a question: its key and category, then a line an option, in the order of the judge's answers.
_FREE = """
vehicle; direction
    turn-left = turn left, {c} car
    straight = no turns, {c} car, just carry on ahead
    turn-right = turn right, {c} car
roll; direction
    down-fast = the {c} wheel races downhill
    down-slow = the {c} wheel creeps downhill
    up-and-back = first uphill, then the {c} wheel comes back
rigid; turning sense
    slide-turn-ccw = push the {c} block and twist it anticlockwise
    slide = the {c} block glides and does not rotate
    slide-turn-cw = push the {c} block and twist it clockwise
orbit; turning sense
    cw = the {c} comet flies round the sun clockwise
    ccw = the {c} comet flies round the sun anticlockwise
spinner; turning sense
    cw = spin the blades clockwise
    ccw = spin the blades anticlockwise
arm-sense; turning sense
    cw = bend the {c} arm clockwise
    ccw = bend the {c} arm anticlockwise
arm-2-joints; which part moves
    shoulder = move only the shoulder of the {c} arm
    elbow = move only the elbow of the {c} arm
arm-3-joints; which part moves
    shoulder = move only the shoulder of the {c} arm
    elbow = move only the elbow of the {c} arm
    wrist = move only the wrist of the {c} arm
billiards; which part moves
    miss = a shot that leaves the other balls alone
    hit = a shot that pushes another ball away
maze; path
    left = robot, use the left opening
    right = robot, use the right opening
maze-2; path
    left-left = robot, use the left opening twice
    left-right = robot, use the left opening, then the right one
    right-left = robot, use the right opening, then the left one
    right-right = robot, use the right opening twice
bounce; strength
    dull = a heavy ball that stays low
    bouncy = a rubber ball that springs up from the floor
camera; camera motion
    pan-left = move the camera to the left
    pan-right = move the camera to the right
    pan-up = move the camera upwards
    pan-down = move the camera downwards
    zoom-in = all gets bigger as the camera comes closer
    zoom-out = all gets smaller as the camera backs away
    roll-cw = the whole view turns clockwise
    roll-ccw = the whole view turns anticlockwise
drift; camera or object
    drifts = filmed by a shaky camera
    still = filmed by a camera on a tripod
"""

# Likewise, with " / " between sentences; long lines go on at the next, further in.
_BLIND = """
vehicle
    turn-left = have the {c} car take a left / the {c} automobile swings round to its left-hand side / seen from
        above, a {c} car bends off towards the driver's left / make the {c} car steer left as it drives
    straight = the {c} car carries straight on / keep the {c} vehicle heading dead ahead without steering either way
        / a {c} motor car drives forward in a straight line / let the {c} car go directly ahead
    turn-right = have the {c} car hang a right / the {c} vehicle veers off to its right / steer the {c} car round a
        right-hand bend / a {c} automobile, viewed from overhead, makes a right turn
roll
    down-fast = the {c} wheel races down the hill / send the {c} wheel hurtling to the bottom of the slope / a {c}
        wheel rolls down the incline at high speed / make the {c} wheel roll downhill really quickly
    down-slow = the {c} wheel creeps down the hill / let the {c} wheel trundle gently to the bottom of the slope / a
        {c} wheel rolls down the incline at a leisurely pace / have the {c} wheel go downhill very slowly
    up-and-back = the {c} wheel rolls up the hill, then comes back down / push the {c} wheel uphill and let it
        return to the bottom / a {c} wheel climbs the slope first before rolling back down again / up the incline
        goes the {c} wheel, only to stop and roll back
rigid
    slide-turn-ccw = the {c} block skids over the floor while spinning anticlockwise / slide the {c} block along and
        twist it counter-clockwise as it goes / a {c} box glides across the ground, rotating counterclockwise / as
        it slips over the floor the {c} block turns against the direction of a clock's hands
    slide = the {c} block slides over the floor without turning / push the {c} block across the ground, keeping it
        at the same angle / a {c} box glides along and does not rotate at all / have the {c} block slip over the
        floor with no spin
    slide-turn-cw = the {c} block skids over the floor while spinning clockwise / shove the {c} block along so that
        it twists clockwise on the way / a {c} box glides across the ground with a clockwise rotation / as it slips
        over the floor the {c} block turns the same way as the hands of a clock
orbit
    cw = the {c} planet goes round its star clockwise / make the {c} comet circle the sun in a clockwise direction /
        a {c} world revolves about the star the way clock hands move / clockwise around the star travels the {c}
        body
    ccw = the {c} planet goes round its star anticlockwise / make the {c} comet circle the sun in a counterclockwise
        direction / a {c} world revolves about the star opposite to the way clock hands move / counter-clockwise
        around the star travels the {c} body
spinner
    cw = the windmill's sails go round clockwise / spin the fan in a clockwise direction / the blades revolve the
        same way as a clock's hands / a rotor whirling clockwise about its hub
    ccw = the windmill's sails go round anticlockwise / spin the fan in a counterclockwise direction / the blades
        revolve the opposite way to a clock's hands / a rotor whirling counter-clockwise about its hub
arm-sense
    cw = the {c} robot arm swings clockwise / rotate the {c} mechanical arm in the clockwise direction / have the
        {c} robotic arm sweep round as a clock hand would / a {c} manipulator makes a clockwise turn
    ccw = the {c} robot arm swings anticlockwise / rotate the {c} mechanical arm in the counterclockwise direction /
        have the {c} robotic arm sweep round contrary to a clock hand / a {c} manipulator makes a counter-clockwise
        turn
arm-2-joints
    shoulder = the {c} robot arm moves at the shoulder and nowhere else / turn just the base joint of the {c} arm /
        a {c} robotic arm pivots solely about its shoulder with the elbow locked / keep the elbow of the {c} arm
        stiff and swing it from the shoulder
    elbow = the {c} robot arm moves at the elbow and nowhere else / bend just the middle joint of the {c} arm / a
        {c} robotic arm flexes solely at its elbow with the shoulder locked / hold the shoulder of the {c} arm in
        place and swing only its forearm about the elbow
arm-3-joints
    shoulder = only the shoulder of the {c} robot arm turns / swing the whole {c} arm from its base joint, keeping
        the other two joints rigid / a {c} mechanical arm whose shoulder is the one joint that moves / let the {c}
        arm pivot at the shoulder with elbow and wrist frozen
    elbow = only the elbow of the {c} robot arm turns / bend the {c} arm at its middle joint, keeping the other two
        joints rigid / a {c} mechanical arm whose elbow is the one joint that moves / let the {c} arm flex at the
        elbow with shoulder and wrist frozen
    wrist = only the wrist of the {c} robot arm turns / move the {c} arm at the last joint by the hand, keeping the
        other two joints rigid / a {c} mechanical arm whose wrist is the one joint that moves / let the {c} arm tilt
        its hand at the wrist with shoulder and elbow frozen
billiards
    miss = the cue ball rolls past all the others without touching any / shoot the white so that it misses every
        other ball / the struck ball makes no contact with the rest / a shot in which the cue ball fails to hit
        anything on the table
    hit = the cue ball smacks into one of the others / shoot the white so that it strikes another ball / the struck
        ball collides with a second one / a shot in which the cue ball knocks a different ball away
maze
    left = the {c} robot walks through the gate on the left / send the {c} robot in by the left-hand opening / a {c}
        android chooses the left gate to get past the wall / out of the two gates the {c} robot takes the left one
    right = the {c} robot walks through the gate on the right / send the {c} robot in by the right-hand opening / a
        {c} android chooses the right gate to get past the wall / out of the two gates the {c} robot takes the right
        one
maze-2
    left-left = the {c} robot goes through the left gate both times / take the {c} robot by the left-hand opening in
        the first wall and the left-hand one again in the second / a {c} android uses the left gate, then the left
        gate once more / at each of the two walls the {c} robot picks the gate on the left
    left-right = the {c} robot goes through the left gate first and the right gate after that / take the {c} robot
        by the left-hand opening in the first wall and the right-hand one in the second / a {c} android uses the
        left gate, then the right gate / having passed the first wall on the left, the {c} robot gets through the
        next on the right
    right-left = the {c} robot goes through the right gate first and the left gate after that / take the {c} robot
        by the right-hand opening in the first wall and the left-hand one in the second / a {c} android uses the
        right gate, then the left gate / having passed the first wall on the right, the {c} robot gets through the
        next on the left
    right-right = the {c} robot goes through the right gate both times / take the {c} robot by the right-hand
        opening in the first wall and the right-hand one again in the second / a {c} android uses the right gate,
        then the right gate once more / at each of the two walls the {c} robot picks the gate on the right
bounce
    dull = the {c} ball lands with a thud and barely bounces / throw the {c} ball down so that it hardly springs up
        at all / a dead ball with next to no bounce in it / on hitting the ground the {c} ball scarcely rebounds
    bouncy = the {c} ball hits the ground and bounces high / throw the {c} ball down so that it springs right back
        up / a lively rubber ball with lots of bounce in it / on hitting the ground the {c} ball rebounds to a great
        height
camera
    pan-left = the camera pans to the left / swing the camera leftwards across the scene / a pan left over the
        picture / move the view over to the left
    pan-right = the camera pans to the right / swing the camera rightwards across the scene / a sideways pan, going
        right / move the view over to the right
    pan-up = the camera pans upwards / raise the camera to look higher in the scene / an upward pan over the picture
        / move the view up
    pan-down = the camera pans downwards / lower the camera to look further down the scene / a downward pan over the
        picture / move the view down
    zoom-in = the camera zooms in / bring the view in closer so everything looks bigger / a zoom towards the middle
        of the picture / get a close-up by magnifying the scene
    zoom-out = the camera zooms out / pull the view back so everything looks smaller / a zoom away from the scene /
        widen the shot so that more of the scene fits in
    roll-cw = the whole picture rotates clockwise / spin the entire image in a clockwise direction / everything in
        view turns together the way a clock's hands do / tilt the full frame round clockwise
    roll-ccw = the whole picture rotates anticlockwise / spin the entire image in a counterclockwise direction /
        everything in view turns together the opposite way to a clock's hands / tilt the full frame round
        counter-clockwise
drift
    drifts = the camera drifts slightly / let the viewpoint wander a little / filmed with a camera that shifts
        gently / the shot is not quite steady as the camera floats a bit
    still = the camera stays put / keep the viewpoint fixed / filmed with a locked-off camera on a tripod / the shot
        is perfectly steady and the camera never moves
"""


class Words(NamedTuple):
    """A question's category, its options as they stand in scene labels, and sentences for each of them."""

    category: str
    options: tuple[str, ...]
    said: dict[str, tuple[tuple[str, ...], ...]]  # by wording: for each option, the sentences that mean it


def _paragraphs(text: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """First line of every paragraph to its options, each with its sentences."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for paragraph in re.split(r"\n(?=\w)", text.strip().replace("\n        ", " ")):
        head, *options = paragraph.splitlines()
        pairs = (option.strip().split(" = ") for option in options)
        found[head] = {option: tuple(sentences.split(" / ")) for option, sentences in pairs}
    return found


def _words() -> dict[str, Words]:
    blind, made = _paragraphs(_BLIND), {}
    for head, free in _paragraphs(_FREE).items():
        key, category = head.split("; ")
        said = {"free": tuple(free.values()), "blind": tuple(blind[key][option] for option in free)}
        made[key] = Words(category, tuple(free), said)
    return made


WORDS = _words()
