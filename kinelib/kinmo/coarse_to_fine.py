"""Motion from words, from coarse to fine: first from the whole sentence, then group by group, then pair by pair (KinMo).

    global        all tokens, from the mean of the global text
    group         a share of them again, from the six groups' sentences as well
    interaction   a share of them again, from the fifteen pairs' sentences as well; then the further codebooks

The paper feeds the tokens of a stage to the next one and does not say how many are drawn anew. Assumption A10: the share
`remask` of them, those that the next level's words make least likely. `remask=1` forgets the stages before and is the
control the paper lacks: the finest words alone. Assumption A9: further codebooks read the words of the last stage.

Group and interaction sentences come from the reasoner; any of them can be given instead. What is said of a group by hand
silences the reasoner's sentences about pairs of that group, which were about another movement.

The length is the caller's, whole tokens of four frames (MoMask predicts one from the text).

Shapes: B clips, L times, G streams, Q codebooks; V levels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from kinelib.bodies.humanml3d import FPS
from kinelib.bodies.motion import Motion
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.codec import decode_clips
from kinelib.kinmo.groups import PAIR_KEYS
from kinelib.kinmo.masked import Conditions, MaskedMotionGenerator, all_hidden, conditions, pair_means
from kinelib.kinmo.masks import there
from kinelib.kinmo.sampling import Sampler, believed, fill, fill_further, generators
from kinelib.kinmo.tokens import STRIDE, MotionTokenizer
from kinelib.learning.text import TextEncoder

if TYPE_CHECKING:
    from kinelib.kinmo.aligner import HierarchicalAligner
    from kinelib.kinmo.reasoner import Reasoner


class SentenceEncoder(Protocol):
    """Anything that turns sentences into vectors."""

    def embed(self, sentences: Sequence[str]) -> Tensor:
        """(N, C) vectors of N sentences, 0 for an empty one."""


@dataclass(frozen=True, eq=False)
class KinMo:
    """The trained parts that make motion from words.

    Args:
        generator: of tokens. tokenizer: whose tokens they are.
        aligner: reads the words; None for a generator of one level, which reads the flat sentence vector.
        reasoner: guesses group and interaction sentences; None: only those that are given are heard.
        encoder: of sentences; None: MiniLM at its first use.

    Raises:
        ValueError: when the parts do not fit each other.
    """

    generator: MaskedMotionGenerator
    tokenizer: MotionTokenizer
    aligner: HierarchicalAligner | None = None
    reasoner: Reasoner | None = None
    encoder: SentenceEncoder = field(default_factory=TextEncoder)
    heard: dict[str, Tensor] = field(default_factory=dict, repr=False)  # sentences embedded so far

    def __post_init__(self) -> None:
        made, codes = self.generator.config, self.tokenizer.config
        if (made.streams, made.codebooks, made.codes) != (len(codes.groups), codes.layers, codes.codes):
            raise ValueError(
                f"the generator makes {made.streams} streams of {made.codebooks} codebooks of {made.codes} codes, the "
                f"tokenizer has {len(codes.groups)}, {codes.layers} and {codes.codes}; they were not trained together."
            )
        levels = 1 if self.aligner is None else len(self.aligner.names)
        if made.levels != levels:
            raise ValueError(
                f"the generator reads {made.levels} levels and "
                + ("there is no aligner; give the one it was trained with." if self.aligner is None else f"not {levels}.")
            )

    def vectors(self, sentences: Sequence[str]) -> Tensor:
        """(N, S) sentence vectors; each different sentence is embedded once, "" is zeros."""
        new = [one for one in dict.fromkeys(sentences) if one not in self.heard]
        if new:
            self.heard.update(zip(new, self.encoder.embed(new).cpu().float(), strict=True))
        return torch.stack([self.heard[one] for one in sentences])

    def sentences(self, prompts: Sequence[str], groups: Sequence[Mapping[str, str] | None] | None = None) -> list[dict]:
        """What is said of every group and pair, 21 keys a prompt: as given, else as the reasoner guesses, else "".

        Args:
            prompts: global texts, "" for none.
            groups: of every prompt sentences by group ("left_arm") or pair ("torso|left_arm"); "" silences one.

        Raises:
            KeyError: for a name that is no group or pair.
        """
        given = [dict(one or {}) for one in (groups or [None] * len(prompts))]
        if len(given) != len(prompts):
            raise ValueError(f"groups have one entry for each of {len(prompts)} prompts (None for none); got {len(given)}.")
        keys = (*GROUPS, *PAIR_KEYS)
        for number, own in enumerate(given):
            if unknown := sorted(set(own) - set(keys)):
                raise KeyError(f"prompt {number}: {unknown[0]!r} is no group or pair; there are {', '.join(keys)}.")
        told = [number for number, prompt in enumerate(prompts) if prompt.strip()]
        said = [dict.fromkeys(keys, "") for _ in prompts]
        if self.reasoner is not None and self.aligner is not None and told:
            for number, found in zip(told, self.reasoner.reason([prompts[number] for number in told]), strict=True):
                said[number].update(zip(keys, found.sentences, strict=True))
        for own, mine in zip(given, said, strict=True):
            mine.update({key: "" for key in PAIR_KEYS if set(key.split("|")) & set(own)})
            mine.update(own)
        return said

    @torch.no_grad()
    def conditions(self, prompts: Sequence[str], groups: Sequence[Mapping[str, str] | None] | None = None) -> Conditions:
        """N prompts, with their groups' sentences as of :meth:`sentences`, as the generator reads them at its last level."""
        device = self.generator.bias.device
        text = self.vectors([prompt.strip() for prompt in prompts]).to(device)
        if self.aligner is None:
            if any(groups or []):
                raise ValueError("this generator reads one flat sentence vector; it cannot be told of single groups.")
            words = conditions(text[:, None])
            return words._replace(silent=(text == 0).all(-1))
        said = self.sentences(prompts, groups)
        inner = torch.stack([self.vectors([one[key] for key in GROUPS]) for one in said]).to(device)
        outer = torch.stack([self.vectors([one[key] for key in PAIR_KEYS]) for one in said]).to(device)
        words = read_texts(self.aligner, {"text": text, "groups": inner, "interactions": outer})
        return words._replace(silent=(text == 0).all(-1) & (inner == 0).all(-1).all(-1) & (outer == 0).all(-1).all(-1))


def read_texts(aligner: HierarchicalAligner, texts: Mapping[str, Tensor]) -> Conditions:
    """What an aligner makes of sentence vectors (see `HierarchicalAligner.encode_texts`), as conditions of its last level.

    States of sentences that are not there are zeros.
    """
    levels = [*aligner.encode_texts(texts).values()]
    means = torch.stack([level.mean for level in levels], 1)
    of_groups = lambda one: one.states * one.mask[..., None] if one.mask.shape[1] == len(GROUPS) else pair_means(*one[1:])
    states = [of_groups(level) for level in levels[1:]]
    own = torch.cat([texts["text"][:, None], texts["groups"]], 1) if "groups" in texts else None
    return conditions(means, torch.stack(states, 1) if states else None, said=own)


def generate(
    model: KinMo,
    prompts: Sequence[str],
    seconds: float | Sequence[float] = 4.0,
    *,
    groups: Sequence[Mapping[str, str] | None] | None = None,
    samples: int = 1,
    seed: int = 0,
    levels: int | None = None,
    remask: float = 0.5,
    sampler: Sampler | None = None,
    batch: int = 32,
) -> list[Motion]:
    """Draws motion for every prompt.

    Args:
        model: the trained parts.
        prompts: one a motion; "" leaves it to the groups' sentences, or to chance.
        seconds: length of all motions, or of each; rounded to whole tokens of 0.2 seconds.
        groups: of every prompt None, or sentences by group or pair that count instead of the reasoner's.
        samples: K motions of every prompt.
        seed: of the draws; sample k of any prompt draws the same numbers.
        levels: stages, 1 to the generator's levels; None: all.
        remask: share of the tokens that the second and the third stage draw anew, (0, 1].
        sampler: how tokens are drawn; None: the defaults.
        batch: motions drawn at once.

    Returns:
        K motions of the first prompt, then K of the second, and so on; 20 frames a second, SMPLX22.

    Raises:
        TypeError: when prompts are not a list of strings. ValueError: for numbers out of range. KeyError: for a name that is
            no group or pair.
    """
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise TypeError(f"prompts are a list of sentences ('' for none); got {prompts!r}.")
    if not prompts or samples < 1 or batch < 1:
        raise ValueError(f"at least one prompt, samples and batch at least 1; got {len(prompts)}, {samples}, {batch}.")
    sampler = Sampler() if sampler is None else sampler
    config = model.generator.config
    levels = config.levels if levels is None else levels
    words, lengths = model.conditions(prompts, groups), token_lengths(seconds, len(prompts), config.longest)
    which = [prompt for prompt in range(len(prompts)) for _ in range(samples)]
    draws = [one for _ in prompts for one in generators(seed, samples)]
    motions: list[Motion] = []
    for first in range(0, len(which), batch):
        rows = torch.tensor(which[first : first + batch])
        own = torch.tensor([lengths[row] for row in rows.tolist()])
        told = words.pick(rows)
        mine, how = draws[first : first + batch], dict(levels=levels, remask=remask)
        motions += decode_codes(model.tokenizer, draw_decodable(model.generator, told, own, mine, sampler, **how), own)
    facts = {"seed": seed, "levels": levels, "remask": remask, "steps": sampler.steps, "guidance": sampler.guidance}
    given = [{"groups": dict(one)} if one else {} for one in (groups or [None] * len(prompts))]
    return [
        motion.with_facts(prompt=prompts[row], sample=number % samples, **facts, **given[row])
        for number, (motion, row) in enumerate(zip(motions, which, strict=True))
    ]


def draw_codes(
    generator: MaskedMotionGenerator,
    words: Conditions,
    lengths: Tensor,
    draws: Sequence[torch.Generator],
    sampler: Sampler,
    *,
    levels: int | None = None,
    remask: float = 0.5,
    given: Tensor | None = None,
    free: Tensor | None = None,
) -> Tensor:
    """The coarse-to-fine loop on tokens: generates, or fills in what is free of given clips.

    Args:
        generator: in eval mode.
        words: of B clips.
        lengths: (B,) times of every clip.
        draws: B generators.
        sampler: how tokens are drawn.
        levels, remask: as of :func:`generate`.
        given: (B, L, G, Q) codes; None: nothing is given.
        free: (B, L, G) bool, which of them are drawn anew; all layers of the others stay as given. None: all.

    Returns:
        (B, L, G, Q).

    Raises:
        ValueError: for levels or a share out of range, or a mask without codes.
    """
    config = generator.config
    levels = config.levels if levels is None else levels
    if not 1 <= levels <= config.levels or not 0 < remask <= 1:
        raise ValueError(f"levels are 1 to {config.levels} here and remask is in (0, 1]; got {levels} and {remask}.")
    if given is None and free is not None:
        raise ValueError("a mask of free tokens needs the codes that are given around them.")
    times = int(lengths.max()) if given is None else given.shape[1]
    if given is None:
        given = torch.zeros(len(lengths), times, config.streams, config.codebooks, dtype=torch.long)
    free = there(lengths, times, config.streams) if free is None else free
    device = generator.bias.device
    given, free, lengths, words = given.to(device), free.to(device), lengths.to(device), words.to(device)
    codes = torch.where(free, all_hidden(config, len(given), times).to(device), given[..., 0])
    codes = torch.where(there(lengths, *free.shape[1:]), codes, 0)
    for level in range(levels):
        hidden = 1.0 if level == 0 else remask
        codes = fill(generator, codes, free, words.at(level), lengths, draws, sampler, hidden=hidden)
    given = torch.cat([codes[..., None], given[..., 1:]], -1)
    return fill_further(generator, given, free, words.at(levels - 1), lengths, draws, sampler)


def draw_decodable(
    generator: MaskedMotionGenerator,
    words: Conditions,
    lengths: Tensor,
    draws: Sequence[torch.Generator],
    sampler: Sampler,
    *,
    levels: int | None = None,
    free: Tensor | None = None,
    **more,
) -> Tensor:
    """What :func:`draw_codes` draws of its arguments, as it shall be decoded: codes, or their odds (B, L, G, Q, K)."""
    levels = generator.config.levels if levels is None else levels
    codes = draw_codes(generator, words, lengths, draws, sampler, levels=levels, free=free, **more)
    if not sampler.soft:
        return codes
    free = there(lengths, *codes.shape[1:3]) if free is None else free
    return believed(generator, codes, free, words.at(levels - 1), lengths)


@torch.no_grad()
def decode_codes(tokenizer: MotionTokenizer, codes: Tensor, lengths: Tensor) -> list[Motion]:
    """The motions of codes (B, L, G, Q), or of their odds (B, L, G, Q, K), with `lengths` (B,) times each."""
    frames = STRIDE * lengths.to(codes.device)
    features = tokenizer.decode(codes, frames).cpu()
    return decode_clips([one[:length] for one, length in zip(features, frames.tolist(), strict=True)])


def token_lengths(seconds: float | Sequence[float], count: int, longest: int) -> list[int]:
    """Times of `count` clips of so many seconds, at most `longest`.

    Raises:
        ValueError: for lengths that are not above 0, not one a clip, or longer than the generator was trained on.
    """
    each = [seconds] * count if isinstance(seconds, Real) else list(seconds)
    if len(each) != count:
        raise ValueError(f"seconds must be one number or one for each of {count} prompts; got {len(each)}.")
    if bad := [one for one in each if not math.isfinite(one) or one <= 0]:
        raise ValueError(f"seconds must be above 0 and finite; got {bad[0]}.")
    lengths = [max(1, round(one * FPS / STRIDE)) for one in each]
    if max(lengths) > longest:
        raise ValueError(
            f"this model was trained on clips of up to {longest * STRIDE / FPS:g} s; {max(each):g} s were asked for. Make "
            "several clips, the last frames of one given to the next (kinelib.kinmo.editing)."
        )
    return lengths
