"""Small stand-ins that the generator's tests share: token sets, words, an encoder of sentences without weights."""

import torch

from kinelib.bodies.clips import Clip
from kinelib.bodies.procedural import procedural_clips
from kinelib.kinmo.codec import encode_clips
from kinelib.kinmo.data import MotionTexts
from kinelib.kinmo.masked import GeneratorConfig, conditions
from kinelib.kinmo.sentences import SentenceBank
from kinelib.kinmo.token_sets import TokenSet

TINY = GeneratorConfig(
    streams=6,
    codebooks=3,
    codes=8,
    text_width=8,
    width=16,
    depth=1,
    residual_depth=1,
    heads=2,
    feed_forward=32,
    code_width=8,
    longest=10,
)


class Letters:
    """An encoder of sentences whose vectors are drawn from their letters."""

    sha256 = "0" * 64

    def __init__(self, width=384):
        self.width, self.asked = width, []

    def embed(self, sentences):
        self.asked += sentences
        return torch.stack([self._one(sentence) for sentence in sentences])

    def _one(self, sentence):
        if not sentence:
            return torch.zeros(self.width)
        seed = sum(number * ord(letter) for number, letter in enumerate(sentence, 1))
        return torch.nn.functional.normalize(torch.randn(self.width, generator=torch.Generator().manual_seed(seed)), dim=0)


def words(count, levels=3, width=8, seed=0, said=384):
    """Conditions of `count` clips, drawn."""
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, generator=generator)
    return conditions(rand(count, levels, width), rand(count, levels - 1, 6, width), said=rand(count, 7, said))


def told_tokens(count=16, times=6, config=TINY, seed=0):
    """Clips whose codes are told by the words: the sign of each level's first channel is the code of all tokens."""
    generator = torch.Generator().manual_seed(seed)
    sign = torch.arange(count) % 2
    codes = sign[:, None, None, None].expand(count, times, config.streams, config.codebooks).repeat(2, 1, 1, 1).short()
    means = 0.3 * torch.randn(count, 2, config.levels, config.text_width, generator=generator)
    means[..., 0] = (2.0 * sign - 1)[:, None, None]
    states = torch.randn(count, 2, config.levels - 1, 6, config.text_width, generator=generator)
    odds = torch.full((count,), 1 / count, dtype=torch.float64)
    said = (2 * torch.randint(10, (count, 2, 7), generator=generator) + sign[:, None, None]).int()
    # Wordings are close to each other: whitening makes any difference between sentences as large as that of their meaning.
    sentences = 1e-3 * torch.randn(20, config.sentence_width, generator=torch.Generator().manual_seed(0))
    sentences[:, 0] = torch.tensor([-2.0, 2.0] * 10)
    sentences = torch.cat([sentences, torch.zeros_like(sentences[:1])]).half()
    return TokenSet(codes, torch.full((count,), times), means.half(), states.half(), said, sentences, odds)


def loud(generator):
    """A generator whose parts that are silent at first have weights, so that they matter untrained."""
    silent = [*generator.base.modulations, *generator.residual.modulations]
    if generator.sentences is not None:
        silent += [generator.sentences.read_whole, generator.sentences.to_all, *generator.sentences.to_own]
    for layer in silent:
        torch.nn.init.normal_(layer.weight, std=0.3)
    return generator


def said_clips(count, seed=3, contents=("walk", "raise-up-left-hand")) -> list[Clip]:
    """Short procedural clips."""
    return procedural_clips(count, seed, contents=contents, seconds=(2.0, 2.5))


def said_motions(count=4, seed=3) -> tuple[MotionTexts, SentenceBank]:
    """Clips as features with made-up sentences that name sides, and their bank."""
    clips = said_clips(count, seed)
    features = encode_clips([clip.motion for clip in clips])
    names = ("torso", "head", "left arm", "right arm", "left leg", "right leg")
    groups = tuple(tuple(f"The {name} of {number}." for name in names) for number in range(count))
    pairs = [f"The {a} and the {b}" for i, a in enumerate(names) for b in names[i + 1 :]]
    motions = MotionTexts(
        torch.cat(features),
        torch.tensor([len(one) for one in features]),
        prompts=tuple(clip.prompts for clip in clips),
        groups=groups,
        interactions=tuple(tuple(f"{pair} of {number}." for pair in pairs) for number in range(count)),
        labels=tuple(f"{clip.content}/{clip.style}" for clip in clips),
        sources=tuple("procedural" if number % 2 else "captured" for number in range(count)),
        names=tuple(map(str, range(count))),
    )
    said = motions.sentences()
    return motions, SentenceBank(said, Letters().embed(said))
