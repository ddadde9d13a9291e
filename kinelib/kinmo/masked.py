"""The masked transformer: motion tokens where they are hidden, from those that are not and from words (KinMo, Section 3.3).

MoMask's generator, which KinMo takes over: a base transformer predicts the codes of the first codebook, all that are hidden
at once, and a residual transformer adds the further codebooks one after the other, each from the sum of the ones below. What
is new are the words. MoMask reads one vector; KinMo reads the mean of the aligner's level that it is at (global text,
groups, interactions), with the same weights at all three levels.

A token of the sequence is a *time*: the code vectors of all groups side by side, through one linear map. A sequence of one
token a group would be six times as long and took four times as long a training step on one core (2.3 s against 0.6 s for 32
clips of five seconds, four layers). Codes are still hidden, given and predicted one group at a time.

Departures from the paper, which is silent on most of it:
  - assumption A9: the level is drawn for every clip, and tells which words are seen. At a level the means of the levels
    before it are seen as well (`cumulative`; the paper: that level's mean alone).
  - from the second level on every group's own state is read, and at the third the mean state of the five pairs a group is in
    (`states`; the paper: the mean alone). This is what lets one group's sentence speak to that group.
  - the table that embeds the codes of a layer is also the one they are recognised by, in both transformers.
  - the whole sentence, and from the second level on every group's own, is read as well, as the encoder's vector, whitened
    (`sentence_width`; the paper: the aligner's means alone). "Is raised" and "is raised and waves" are 1.5 spreads apart in
    the aligner's space, 14 in that of whitened sentences. What a group's sentence says also goes straight to its own tokens.
  - words also scale and shift what the layers read (`modulate`; the paper: tokens of the sequence alone).
  - no text is a learned vector, as zero may be a valid mean; what is read is whitened by statistics of the training texts.
  - norms before each part instead of after it, which needs no warm-up of thousands of steps.

Shapes: B clips, L times (four frames each), G streams of tokens, Q codebooks of K codes, V levels, C channels of a level's
mean, W channels of the transformer. codes (B, L, G, Q); K in the place of a code means hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor, nn

from kinelib.bodies.skeleton import GROUPS
from kinelib.bodies.tmr import positional_code
from kinelib.kinmo.groups import PAIRS
from kinelib.learning.whitening import Whitening
from kinelib.notation import ShapeError, check_shape

LEVELS = ("global", "group", "interaction")
SAID = 1 + len(GROUPS)  # sentences that are read themselves: the whole one, and one a group
OWN_FLOOR = 1.0  # of the whitening of groups' own sentences: little of what no annotator says is blown up


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of a generator; G, Q and K are the tokenizer's, C is the aligner's."""

    streams: int = 6  # G, token streams: one a group, or one of the whole body
    codebooks: int = 4  # Q, the base layer included
    codes: int = 128  # K of every codebook
    levels: int = 3  # V, 3 for the aligner's; 1 for a generator that reads one flat sentence vector
    text_width: int = 128  # C
    width: int = 192  # W
    depth: int = 4  # layers of the base transformer
    residual_depth: int = 2  # layers of the residual transformer
    heads: int = 6  # of attention
    feed_forward: int = 768  # hidden channels
    code_width: int = 64  # of a code's vector
    dropout: float = 0.0  # in training; MoMask: 0.2 with a hundred times the steps
    longest: int = 25  # times of the longest clip in training
    cumulative: bool = True  # a level sees the means of those before it; the paper: False
    states: bool = True  # groups' and pairs' own states are read; the paper: False
    sentence_width: int = 384  # S of the sentences' own vectors, the whole's and groups'; 0, as in the paper: not read
    modulate: bool = True  # words scale and shift what layers read; the paper: False

    @property
    def reads_sentences(self) -> bool:
        """Whether sentences' own vectors are read: at one level the mean is such a vector already."""
        return bool(self.sentence_width) and self.levels > 1


class Conditions(NamedTuple):
    """What B clips are to show, in words as the aligner reads them."""

    means: Tensor  # (B, V, C) one a level
    states: Tensor  # (B, V - 1, 6, C) of every group: its own sentence's state, and the mean of its five pairs' states
    level: Tensor  # (B,) up to which level it is seen, 0..V - 1
    silent: Tensor  # (B,) bool, True where no words are seen at all
    said: Tensor  # (B, 7, S) vectors of the whole and the groups' own sentences, zeros for nothing; S = 0: not known

    def at(self, level: int) -> Conditions:
        """The same words, seen up to another level."""
        return self._replace(level=torch.full_like(self.level, level))

    def pick(self, rows: Tensor | slice) -> Conditions:
        """Some of the clips."""
        return Conditions(*(part[rows] for part in self))

    def with_silent_twin(self) -> Conditions:
        """These clips and then the same without words (2 B), for guidance."""
        twice = Conditions(*(torch.cat([part, part]) for part in self))
        return twice._replace(silent=torch.cat([self.silent, torch.ones_like(self.silent)]))

    def to(self, device: str | torch.device) -> Conditions:
        """The same on another device."""
        return Conditions(*(part.to(device) for part in self))


def conditions(
    means: Tensor, states: Tensor | None = None, level: int | None = None, said: Tensor | None = None
) -> Conditions:
    """Words that are seen up to a level.

    Args:
        means: (B, V, C). states: (B, V - 1, 6, C); None: zeros. said: (B, 7, S); None: nothing.
        level: the same for all clips; None: the last.
    """
    sizes = check_shape("means", means, "B V C")
    if states is None:
        states = means.new_zeros(sizes["B"], sizes["V"] - 1, len(GROUPS), sizes["C"])
    check_shape("states", states, "B U G C", B=sizes["B"], U=sizes["V"] - 1, G=len(GROUPS), C=sizes["C"])
    level = sizes["V"] - 1 if level is None else level
    silent = torch.zeros(sizes["B"], dtype=torch.bool, device=means.device)
    said = means.new_zeros(sizes["B"], SAID, 0) if said is None else said
    check_shape("said", said, "B N S", B=sizes["B"], N=SAID)
    return Conditions(means, states, torch.full_like(silent, level, dtype=torch.long), silent, said)


class Layer(nn.TransformerEncoderLayer):
    """A transformer layer, norms first, that can be modulated.

    Args:
        config: sizes.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        sizes = config.width, config.heads, config.feed_forward, config.dropout
        super().__init__(*sizes, activation="gelu", batch_first=True, norm_first=True)

    def forward(self, x: Tensor, hidden: Tensor, modulation: Tensor | None = None) -> Tensor:
        """(B, M, W), of which `hidden` (B, M) bool are not attended to -> (B, M, W).

        `modulation` (B, 4 W) is scale and shift of what attention reads, then of what the feed-forward part reads.
        """
        if modulation is None:
            return super().forward(x, src_key_padding_mask=hidden)
        scale, shift, scale_2, shift_2 = modulation[:, None].chunk(4, -1)
        read = self.norm1(x) * (1 + scale) + shift
        x = x + self.dropout1(self.self_attn(read, read, read, key_padding_mask=hidden, need_weights=False)[0])
        read = self.norm2(x) * (1 + scale_2) + shift_2
        return x + self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(read)))))


class Trunk(nn.Module):
    """Transformer layers over the words' tokens and one token a time.

    Args:
        config: sizes.
        depth: number of layers.
        modulated: whether words scale and shift what they read.
    """

    def __init__(self, config: GeneratorConfig, depth: int, modulated: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(depth))
        self.norm = nn.LayerNorm(config.width)
        self.modulations = nn.ModuleList(nn.Linear(config.width, 4 * config.width) for _ in range(depth * modulated))
        for one in self.modulations:  # at first words change nothing
            nn.init.zeros_(one.weight)
            nn.init.zeros_(one.bias)

    def forward(
        self, x: Tensor, words: Tensor, visible: Tensor, summary: Tensor, links: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Times (B, L, W) and words (B, V, W), of which `visible` (B, V + L) are seen -> (B, L, W).

        `summary` (B, W) of the words modulates; `links`, one (B, L, W) a layer, are added to the times after each layer.
        """
        first = words.shape[1]
        x = torch.cat([words, x + positional_code(x.shape[1], x.shape[2]).to(x)], 1)
        for number, layer in enumerate(self.layers):
            x = layer(x, ~visible, self.modulations[number](summary) if self.modulations else None)
            if links is not None:
                x = torch.cat([x[:, :first], x[:, first:] + links[number]], 1)
        return self.norm(x[:, first:])


class OwnSentences(nn.Module):
    """What sentences say themselves: the whole one and every group's to all, a group's straight to its own tokens as well.

    Args:
        config: sizes.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width = config.width
        self.whole_whitening, self.whitening = (Whitening(config.sentence_width) for _ in range(2))
        self.read_whole = nn.Linear(config.sentence_width, width, bias=False)
        self.read = nn.Sequential(nn.Linear(config.sentence_width, width), nn.GELU())
        self.to_all = nn.Linear(len(GROUPS) * width, width, bias=False)
        # One for the base, one for the further codebooks: scale and shift of the vectors told of a group's tokens.
        self.to_own = nn.ModuleList(nn.Linear(width, 2 * config.code_width, bias=False) for _ in range(2))
        for layer in (self.read_whole, self.to_all, *self.to_own):
            nn.init.zeros_(layer.weight)

    def whole(self, said: Tensor) -> Tensor:
        """What the first of the sentences (B, 7, S) says of the whole body, (B, W)."""
        return self.read_whole(self.whole_whitening.directions(said[:, 0].float()))

    def forward(self, said: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        """Sentences (B, 7, S) of clips that heard them (B,) -> what all groups hear (B, W), and each its own (B, 6, W)."""
        said = said[:, 1:]
        known = (said != 0).any(-1, keepdim=True) & heard[:, None, None]
        own = self.read(self.whitening.directions(said.float())) * known
        return self.to_all(rearrange(own, "b g w -> b (g w)")), own

    def told(self, vectors: Tensor, own: Tensor, layer: int) -> Tensor:
        """Vectors (B, L, G, D) told of the tokens of a codebook, as the groups' own sentences (B, G, W) change them."""
        scale, shift = self.to_own[min(layer, 1)](own)[:, None].chunk(2, -1)
        return vectors * (1 + scale) + shift


class Words(NamedTuple):
    """Words as the transformers read them."""

    added: Tensor  # (B, 1, W) to every time
    tokens: Tensor  # (B, V, W)
    visible: Tensor  # (B, V + L) bool, which tokens and times are seen
    summary: Tensor  # (B, W)
    own: Tensor | None  # (B, 6, W) of every group's own sentence


class MaskedMotionGenerator(nn.Module):
    """Base and residual transformer over motion tokens.

    Args:
        config: sizes.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.codebooks, config.streams, config.codes + 1, config.code_width
        self.table = nn.Parameter(torch.randn(sizes) / config.code_width**0.5)  # of a layer's codes; the last row is hidden
        self.bias = nn.Parameter(torch.zeros(config.codebooks, config.streams, config.codes))  # how common they are
        side_by_side = config.streams * config.code_width
        self.read_base, self.read_sum = nn.Linear(side_by_side, config.width), nn.Linear(side_by_side, config.width)
        self.tell_base, self.tell_next = nn.Linear(config.width, side_by_side), nn.Linear(config.width, side_by_side)
        self.base = Trunk(config, config.depth, config.modulate)
        self.residual = Trunk(config, config.residual_depth, config.modulate)
        self.order = nn.Parameter(0.02 * torch.randn(config.codebooks, config.width))  # which layer is asked for
        self.whitening = nn.ModuleList(Whitening(config.text_width) for _ in range(config.levels))
        self.read_means = nn.ModuleList(nn.Linear(config.text_width, config.width) for _ in range(config.levels))
        self.no_means = nn.Parameter(0.02 * torch.randn(config.levels, config.width))
        shape = config.levels - 1, len(GROUPS), config.text_width
        self.register_buffer("state_mean", torch.zeros(shape))
        self.register_buffer("state_scale", torch.ones(shape))
        inputs = shape[0] * shape[1] * shape[2]
        self.read_states = nn.Linear(inputs, config.width, bias=False) if config.states and inputs else None
        self.sentences = OwnSentences(config) if config.reads_sentences else None

    def set_text_statistics(
        self, means: Tensor, states: Tensor, sentences: Tensor | None = None, wholes: Tensor | None = None
    ) -> None:
        """Whitens what is read by the statistics of N training texts.

        Args:
            means: (N, V, C). states: (N, V - 1, 6, C).
            sentences, wholes: (U, S) vectors of the different sentences of groups, and of whole bodies.
        """
        if self.sentences is not None and sentences is not None:
            self.sentences.whitening.measure(sentences.float(), OWN_FLOOR)
        if self.sentences is not None and wholes is not None:
            self.sentences.whole_whitening.measure(wholes.float())
        for level, whitening in enumerate(self.whitening):
            whitening.measure(means[:, level].float())
        if states.shape[1]:
            spread, mean = torch.std_mean(states.float(), dim=0, correction=0)
            self.state_mean.copy_(mean)
            self.state_scale.copy_(1 / spread.clamp_min(0.1 * spread.mean()).clamp_min(1e-6))

    def forward(
        self, codes: Tensor, conditions: Conditions, lengths: Tensor, links: Sequence[Tensor] | None = None
    ) -> Tensor:
        """What every base code may be.

        Args:
            codes: (B, L, G) base codes, K where hidden.
            conditions: the words.
            lengths: (B,) times that are there, 1..L.
            links: what a control branch adds to the times, one (B, L, W) a layer.

        Returns:
            logits (B, L, G, K).
        """
        self._check(codes, "B L G", conditions, lengths)
        words = self._words(conditions, lengths, codes.shape[1])
        x = self.read_base(self._side_by_side(self._vectors(codes, 0))) + words.added
        x = self.base(x, words.tokens, words.visible, words.summary, links)
        return self._recognised(self.tell_base(x), 0, words)

    def next_layer(self, codes: Tensor, conditions: Conditions, lengths: Tensor) -> Tensor:
        """What the codes of layer q may be, from all layers below it.

        Args:
            codes: (B, L, G, q) with 1 <= q < Q, none hidden.
            conditions, lengths: as of :meth:`forward`.

        Returns:
            logits (B, L, G, K).

        Raises:
            ShapeError: when there is no layer below or no such layer.
        """
        self._check(codes, "B L G q", conditions, lengths)
        layer = codes.shape[-1]
        if not 1 <= layer < self.config.codebooks:
            raise ShapeError(f"there are {self.config.codebooks} codebooks; codes of {layer} layers have none to be added.")
        words = self._words(conditions, lengths, codes.shape[1])
        below = sum(self._vectors(codes[..., q], q) for q in range(layer))
        x = self.read_sum(self._side_by_side(below)) + words.added + self.order[layer]
        x = self.residual(x, words.tokens, words.visible, words.summary)
        return self._recognised(self.tell_next(x), layer, words)

    def _vectors(self, codes: Tensor, layer: int) -> Tensor:
        """Vectors (B, L, G, D) of the codes (B, L, G) of a layer."""
        return self.table[layer][torch.arange(self.config.streams, device=codes.device), codes]

    def _side_by_side(self, vectors: Tensor) -> Tensor:
        return rearrange(vectors, "b l g d -> b l (g d)") * self.config.code_width**0.5

    def _recognised(self, vectors: Tensor, layer: int, words: Words) -> Tensor:
        """Logits (B, L, G, K) of the vectors (B, L, G D) that are told of a layer's codes."""
        vectors = rearrange(vectors, "b l (g d) -> b l g d", g=self.config.streams)
        if words.own is not None and self.config.streams == len(GROUPS):
            vectors = self.sentences.told(vectors, words.own, layer)
        return einsum(vectors, self.table[layer, :, :-1], "b l g d, g k d -> b l g k") + self.bias[layer]

    def _words(self, conditions: Conditions, lengths: Tensor, times: int) -> Words:
        means, states, level, silent, said = conditions
        heard = [read(white(means[:, v].float())) for v, (read, white) in enumerate(self._readers())]
        listens = self.sentences is not None and bool(said.shape[-1])
        if listens:
            heard[0] = heard[0] + self.sentences.whole(said)
        tokens = torch.where(silent[:, None, None], self.no_means, torch.stack(heard, 1))
        order = torch.arange(self.config.levels, device=level.device)
        seen = order <= level[:, None] if self.config.cumulative else order == level[:, None]
        present = torch.arange(times, device=level.device) < lengths[:, None].to(level.device)
        added = tokens.new_zeros(len(level), 1, self.config.width)
        if self.read_states is not None:
            own = (states.float() - self.state_mean) * self.state_scale
            known = (states != 0).any(-1, keepdim=True) & ~silent[:, None, None, None]  # a sentence left out is no state
            known = known & (order[1:] <= level[:, None])[:, :, None, None]
            added = self.read_states(rearrange(torch.where(known, own, 0.0), "b u g c -> b 1 (u g c)"))
        summary, own = reduce(tokens * seen[..., None], "b v w -> b w", "sum"), None
        if listens:
            to_all, own = self.sentences(said, ~silent & (level > 0))
            added, summary = added + to_all[:, None], summary + to_all
        return Words(added, tokens, torch.cat([seen, present], 1), summary, own)

    def _readers(self) -> zip:
        return zip(self.read_means, self.whitening, strict=True)

    def _check(self, codes: Tensor, pattern: str, conditions: Conditions, lengths: Tensor) -> None:
        config = self.config
        batch = check_shape("codes", codes, pattern, G=config.streams)["B"]
        check_shape("lengths", lengths, "B", B=batch)
        check_shape("means", conditions.means, "B V C", B=batch, V=config.levels, C=config.text_width)
        shape = {"B": batch, "U": config.levels - 1, "G": len(GROUPS), "C": config.text_width}
        check_shape("states", conditions.states, "B U G C", **shape)
        if self.sentences is not None and conditions.said.shape[-1]:
            check_shape("said", conditions.said, "B N S", B=batch, N=SAID, S=config.sentence_width)


def pair_means(interactions: Tensor, said: Tensor) -> Tensor:
    """Of every group the mean over the pairs that it is in, of which something is said.

    Args:
        interactions: (B, 15, C) in the order of `groups.PAIRS`.
        said: (B, 15) bool.

    Returns:
        (B, 6, C); zeros where nothing is said of any of a group's five pairs.
    """
    check_shape("interactions", interactions, f"B {len(PAIRS)} C")
    touching = torch.tensor([[number for number, pair in enumerate(PAIRS) if group in pair] for group in GROUPS])
    weights = said[:, touching, None].to(interactions.dtype)
    return (interactions[:, touching] * weights).sum(2) / weights.sum(2).clamp_min(1)


def masked_loss(logits: Tensor, codes: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the codes (B, L, G) that count (B, L, G) bool, and the share of them that is most likely."""
    own, right = logits[counted], codes[counted]
    return F.cross_entropy(own, right), (own.argmax(-1) == right).float().mean()


def all_hidden(config: GeneratorConfig, batch: int, times: int) -> Tensor:
    """Codes (B, L, G) of which none is known."""
    return repeat(torch.tensor(config.codes), "-> b l g", b=batch, l=times, g=config.streams).clone()
