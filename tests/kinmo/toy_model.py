"""A whole KinMo of untrained networks for the tests of editing, control and evaluation, and a reasoner that parrots."""

from dataclasses import replace

import torch
from toy_tokens import TINY, Letters, loud

from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.aligner import AlignerConfig, HierarchicalAligner
from kinelib.kinmo.coarse_to_fine import KinMo
from kinelib.kinmo.codec import block_statistics, encode_clips
from kinelib.kinmo.groups import PAIR_KEYS
from kinelib.kinmo.masked import MaskedMotionGenerator
from kinelib.kinmo.reasoner import Reasoned
from kinelib.kinmo.sampling import Sampler
from kinelib.kinmo.tokens import MotionTokenizer, TokenizerConfig

QUICK = Sampler(steps=2, kept=1.0)
WIDTH = 16


class Parrot:
    """A reasoner that says of every group and pair its name, and of arms what the prompt says of hands."""

    def reason(self, texts):
        assert all(texts)
        return [Reasoned({g: self._of(g, text) for g in GROUPS}, {k: f"{k}." for k in PAIR_KEYS}) for text in texts]

    def prompt_for(self, sentences):
        return " ".join(sentences.values())

    @staticmethod
    def _of(group, text):
        side, _, part = group.partition("_")
        told = part == "arm" and f"{side} hand" in text
        return f"The {group}: {text}" if told else f"The {group}."


def kinmo(clips=(), streams="groups", **changes):
    """Untrained parts; the tokenizer's statistics are those of `clips`, its codebooks are drawn."""
    torch.manual_seed(0)
    tokenizer = MotionTokenizer(TokenizerConfig(streams=streams, width=8, blocks=1, codes=8, code_width=4)).eval()
    torch.nn.init.normal_(tokenizer.quantizer.codebooks)
    if clips:
        tokenizer.statistics.set(block_statistics(torch.cat(encode_clips([clip.motion for clip in clips]))))
    aligner = HierarchicalAligner(AlignerConfig(width=WIDTH, layers=1, heads=2, feed_forward=16)).eval()
    sizes = replace(TINY, text_width=WIDTH, streams=len(tokenizer.config.groups), longest=25)
    generator = loud(MaskedMotionGenerator(sizes)).eval()
    parts = {"aligner": aligner, "reasoner": Parrot(), "encoder": Letters()} | changes
    return KinMo(generator.requires_grad_(False), tokenizer.requires_grad_(False), **parts)
