"""Other words for what the scenes' captions say, so that a planner learns meanings and not the generator's grammar.

A caption is matched by what it says (a rule's pattern); its colour, way, side and sense of turning fill the slots of the
rule's sentences. Training draws one of them instead of the caption for half of the clips. The free wordings that prompts
are tested with are others; a test holds both apart.

Not in the paper, whose only text is the instruction of a robot's task.
"""

from __future__ import annotations

import re
from functools import lru_cache

from kinelib.tracks.scene_looks import COLOURS, COMPASS

# A paragraph a rule: the pattern that a caption's main clause matches, then sentences, " / " between them. Slots: {c} the
# first colour, {w} the way on the screen, {side} left or right, {s} a sense of turning, {j} a joint, {first}, {then} gates.
_RULES = """
car .*turns (?P<side>left|right)
the {c} car takes a {side} / {c} car steers {side} / steer the {c} car to the {side} / make the {c} car turn {side} /
the {c} vehicle veers {side} / the {c} car goes {w} and swings to the {side} / a {side} turn by the {c} car /
the {c} car bends off to its {side} / have the {c} car drive round to the {side} / the {c} car curves {side}wards /
it drives a {side}-hand bend / the {c} car changes direction to the {side}

car .*goes straight on
the {c} car keeps going straight / drive the {c} car straight ahead / the {c} car holds its course /
the {c} car does not turn / the {c} vehicle continues forwards without turning / keep the {c} car going {w} /
the {c} car stays on its line / {c} car, go straight / the {c} car drives forward in a straight line /
it follows the road straight ahead / never steering

wheel .*rolls quickly down
the {c} wheel speeds down the slope / fast down the hill goes the {c} wheel / the {c} wheel rushes down the ramp /
roll the {c} wheel down quickly / the {c} tyre rolls downhill at high speed / a rapid roll down the hill /
the {c} wheel hurtles to the bottom / down the slope in no time / the {c} disc rolls down the incline fast /
let it roll down swiftly

wheel .*rolls slowly down
the {c} wheel rolls down the slope at a slow pace / slowly down the hill goes the {c} wheel /
a slow roll down the ramp / roll the {c} wheel down gently / the {c} tyre rolls downhill at low speed /
the {c} wheel takes its time going down / the {c} wheel inches down the incline / a leisurely roll down the hill /
the {c} disc goes down the slope without haste

wheel .*rolls up and then back down
the {c} wheel climbs the slope and rolls back / up the hill and down again goes the {c} wheel /
roll the {c} wheel up, then let it return / the {c} wheel goes up the ramp, stops and comes down again /
the {c} tyre rolls upwards before rolling down / it starts uphill, slows and returns /
the {c} wheel is pushed up the incline and falls back / the {c} disc rolls up, turns around and rolls down

(block|shape|body).*while turning|while turning .*body
the {c} block slides and spins {s} / rotate the {c} block {s} as it slides / the {c} shape moves {w} and rotates {s} /
a {s} rotation of the sliding {c} block / the {c} piece glides {w}, turning {s} on the way /
slide it {w} with a {s} spin / the {c} body shifts and revolves {s} / the {c} block moves and turns round {s} /
spin the {c} piece {s} while it travels / the {c} object goes {w} with a {s} turn

(block|shape|body).*without turning|without turning.*body
the {c} block slides without any rotation / the {c} shape moves {w} and keeps its orientation /
shift the {c} block {w} / the {c} piece glides {w} in a straight pose / no rotation, the {c} body only moves {w} /
the {c} block just slides {w} / translate the {c} block without spinning it /
the {c} object goes {w} and stays aligned / the {c} block moves but never turns

arm turns its|robot arm swings|arm rotates
the {c} arm rotates {s} at the {j} / swing the {c} arm {s} / the {j} joint of the {c} arm turns {s} /
rotate the {j} {s} / the robot's {j} swivels {s} / the {c} robot arm moves {s}, turning at its {j} /
turn the {j} of the robot arm {s} / a {s} swing of the {c} arm about its {j} / only the {j} rotates /
the {j} is the joint that moves / the arm turns at the {j} alone / the {c} robot moves its {j} and nothing else

(comet|ball circles).*
the {c} comet revolves {s} around the star / a {s} orbit about the star / the {c} ball travels round the star {s} /
send the {c} comet {s} around the star / the {c} planet circles its star {s} / it loops {s} about the bright star /
the {c} body goes round the middle {s} / {s} round the star / the star is orbited {s} by the {c} comet /
the {c} moon turns about the star {s}

windmill|fan spins|blades rotate
the windmill rotates {s} / turn the fan {s} / the blades go round {s} / the {c} fan is turning {s} /
a {s} spin of the windmill / the rotor revolves {s} / make the windmill turn {s} / the propeller spins {s} /
the {c} blades are whirling {s} / rotate the wheel of blades {s}

meets no other ball
the {c} ball rolls {w} without touching another ball / the {c} ball misses all the others / it hits nothing /
the shot misses / no ball is struck by the {c} one / the {c} ball rolls past every other ball / no collision /
the other balls stay where they are / shoot the {c} ball {w} into the open /
the {c} ball finds its way without a collision

knocks a ball away|sets off several collisions
the {c} ball hits another ball / the {c} ball rolls {w} and collides with a ball / it runs into another ball /
the shot connects / a collision: the {c} ball strikes the next one / strike a ball with the {c} ball /
the {c} ball bumps a ball and sends it rolling / shoot the {c} ball {w} at the others /
another ball is knocked on by the {c} ball / the {c} ball crashes into other balls

(through|takes) the (?P<first>left|right) gate and then the (?P<then>left|right) gate
the {c} robot goes {first}, then {then} / first the {first} gate, then the {then} one /
take the {first} door and after it the {then} door /
the {c} robot walks through the {first} gap, then through the {then} gap /
{first} at the first wall, {then} at the second / {first} gate first and {then} gate second /
the {c} robot passes the first wall on the {first} and the second on the {then} /
the way leads through the {first} gate and after that the {then} gate / go {first} and then go {then} /
the {c} agent chooses {first}, then {then}

(through|takes) the (?P<side>left|right) gate
the {c} robot walks through the {side} gap / take the {side} door / the {c} robot passes the wall on the {side} /
go {side} at the wall / the {side} gate is the one it takes / the {c} agent chooses the {side} passage /
the {c} robot goes round by the {side} / guide the {c} robot through the gate on the {side} /
its way leads through the {side}-hand gate / the {c} robot enters on the {side} side

hardly bounces
the {c} ball lands and stays down / the {c} ball hits the ground with little rebound /
a ball that does not bounce much / throw the {c} ball, it thuds on the floor / the {c} ball barely rebounds /
hardly any bounce / the {c} ball drops dead on the ground / a low bounce / the {c} ball is soft and comes to rest soon /
the {c} ball flies {w} and lands with a thud

bounces high
the {c} ball rebounds far up from the ground / a very bouncy ball / throw the {c} ball, it leaps up again /
a big bounce / the {c} ball jumps high off the floor / high bounces of the {c} ball /
the {c} ball comes back up nearly as high as it fell / the {c} ball is elastic and bounces strongly /
the {c} ball flies {w} and rebounds high / it hops high after landing

camera pans (?P<to>left|right|up|down)
pan {to} / the camera turns {to} / the view shifts {to} / look {to} / the camera looks further {to} /
slide the view {to} / a pan {to} over the scene / the camera slowly sweeps {to} / aim the camera {to} /
the picture shows what lies further {to}

camera zooms in
zoom in / the camera goes closer / move closer / the objects become larger / a zoom in / get nearer with the camera /
the view closes in on the objects / enlarge the picture / the camera approaches the scene / push in

camera zooms out
zoom out / the camera goes further away / move away / the objects become smaller / a zoom out /
get further off with the camera / the view widens / shrink the picture / the camera retreats from the scene /
pull back

picture rotates
rotate the picture {s} / the camera rolls so that the picture turns {s} / the image spins {s} / turn the image {s} /
everything on the screen rotates {s} / a {s} rotation of the view / the frame tilts {s} /
the scene revolves {s} as a whole / the screen content turns {s} / roll the view {s}

flag (waves gently|flutters)
a light breeze moves the {c} flag / the {c} flag ripples softly / a weak wind / the {c} cloth sways a bit /
the flag stirs gently

flag (waves strongly|flaps)
a gale blows at the {c} flag / the {c} flag beats wildly / a storm / the {c} cloth whips in the wind /
strong gusts shake the flag

(snake|worm) .*(bends|curling to its) (?P<side>left|right)
the {c} snake winds to the {side} / the {c} worm curls {side} / bend the {c} snake to the {side} /
the {c} snake turns {side} as it creeps / a curve to the {side} by the {c} snake

(snake|worm) (crawls|creeps)
the {c} snake slithers on {w} / the {c} worm moves {w} without bending / the {c} snake glides straight on /
forward crawls the {c} snake

blob (grows|stretches)
the {c} blob gets longer / lengthen the {c} blob / pull the {c} blob apart / the {c} shape is stretched

blob (is squashed|shortens)
press the {c} blob flat / the {c} blob gets shorter and wider / squeeze the {c} blob / the {c} shape is flattened

(blob|jelly) wobbles
the {c} blob jiggles / the {c} jelly shakes / wobble the {c} blob / the {c} shape quivers in place
"""

DRIFTS = (
    "while the camera moves a little", "and the camera drifts along", "with a moving camera", "as the camera wanders",
    "while the view drifts", "filmed from a moving hand", "the camera is not still",
)  # fmt: skip
STILL = ("with a fixed camera", "and the camera stands still", "while the camera does not move", "seen by a resting camera")
_WANDERS = (
    "the camera drifts", "the camera wanders a bit", "the view shifts slightly meanwhile", "a drifting camera looks on",
    "the person filming moves slightly", "the whole picture drifts a bit",
)  # fmt: skip
_RESTS = (
    "the camera stands still", "the camera rests", "the view stays where it is", "only things move and the camera does not",
    "a resting camera looks on", "nothing moves in the background",
)  # fmt: skip
_SENSES = {
    "clockwise": ("clockwise",),
    "counter-clockwise": ("counter-clockwise", "counterclockwise", "anticlockwise", "anti-clockwise"),
}
_DRIFT, _SECOND = " while the camera drifts", r" while the \w+ car "
_WAYS = "|".join(sorted(COMPASS, key=len, reverse=True))


@lru_cache(1)
def rules() -> list[tuple[re.Pattern, tuple[str, ...]]]:
    """Pattern and sentences of every rule, in the order in which they are tried."""
    made = []
    for paragraph in _RULES.strip().split("\n\n"):
        pattern, said = paragraph.split("\n", 1)
        made.append((re.compile(pattern), tuple(" ".join(said.split()).split(" / "))))
    return made


@lru_cache(None)
def reworded(caption: str) -> tuple[str, ...]:
    """Other sentences that say what a scene's caption says, or a part of it; none for captions of other sources.

    Args:
        caption: of a scene, as `tracks.scenes` writes them.
    """
    drifts = caption.endswith(_DRIFT)
    main, *second = re.split(f"({_SECOND}.*)", caption.removesuffix(_DRIFT))
    found = next(((match, said) for pattern, said in rules() if (match := pattern.search(main))), None)
    colour = re.search(rf"\b({'|'.join(COLOURS)})\b", main)
    if found is None or colour is None:
        return ()
    match, said = found
    slots = match.groupdict()
    way = re.search(rf"\b({_WAYS})\b", re.sub(r"\b(left|right) gate|(turns|bends|to its) (left|right)", "", main))
    joint = re.search(r"shoulder|elbow|wrist", main)
    sense = re.search(r"(counter-)?clockwise", main)
    slots |= {"c": colour[0], "w": way and way[0], "j": joint and joint[0]}
    senses = _SENSES[sense[0]] if sense else ("",)
    of_camera = re.match("the (camera|picture)", main)
    sentences = []
    for number, sentence in enumerate(said, start=len(caption)):  # another synonym and another ending for another caption
        slots["s"] = senses[number % len(senses)]
        if not all(slots.get(name) for name in re.findall(r"{(\w+)}", sentence)):
            continue
        words = re.sub(r"\ba (?=anti|orange|elbow)", "an ", sentence.format(**slots)) + "".join(second[:1])
        if drifts:
            words += f" {DRIFTS[number % len(DRIFTS)]}"
        elif number % 4 == 0 and not of_camera:
            words += f" {STILL[number // 4 % len(STILL)]}"  # that the camera stands still, captions never say
        sentences.append(words)
    if not of_camera:  # what the camera does, and nothing else
        alone = _WANDERS if drifts else _RESTS
        sentences += [alone[(len(caption) + k) % len(alone)] for k in range(2)]
    return tuple(sentences)
