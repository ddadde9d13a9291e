"""`HierarchicalAligner`: motion and texts at three levels as points of one space (KinMo, Section 4, HTMA; Eq. 4 to 7).

One motion encoder; three text encoders of TMR's kind, each of which first looks once at the whole output of the one before:

    h_c = E_c(T_c)      h_g = E_g(T_g + attention(T_g, h_c))      h_i = E_i(T_i + attention(T_i, h_g))

Every level is a TMR with the same motion: InfoNCE, divergences, distance of latents, and reconstruction by one decoder.

What the paper leaves open. A5: texts are projected to the width first; queries are the level's own tokens, keys and values
the level before it with its two prefix tokens. A6: each of the six and fifteen sentences is one token with a learned
embedding of its group or pair, so that an order of sentences means nothing. A7: a text and a motion are as close as the mean
of the levels' cosines; `score="last"` takes the finest level alone. A8: one motion latent, the levels' losses averaged, with
TMR's terms; the weight of InfoNCE is larger, for trainings of minutes.

Departures for small sizes: `patch` rows of features are one token, a sentence is one whitened vector of MiniLM instead of
RoBERTa's word pieces, and which texts say the same is told by labels (`same="sentences"`: by vectors, as TMR does).

Ablations are fields of the config: fewer `levels`, no `cross`, and `flat`, all sentences as one sequence for one encoder.

Shapes: features (B, T, 263), lengths (B,), a sentence C = 384, embeddings (B, W) with W the width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import frame_mask, hold_last
from kinelib.bodies.humanml3d import SIZE
from kinelib.bodies.tmr import Gaussian, MotionDecoder, SequenceEncoder, TMRConfig, info_nce, kl_losses, similarity
from kinelib.learning.text import WIDTH
from kinelib.learning.whitening import Whitening
from kinelib.notation import check_shape

SLOTS = {"global": 1, "group": 6, "interaction": 15}  # sentences of each level
FIELDS = {"global": "text", "group": "groups", "interaction": "interactions"}  # of a batch
FLAT = "flat"


@dataclass(frozen=True)
class AlignerConfig:
    """What the aligner is built from."""

    levels: tuple[str, ...] = ("global", "group", "interaction")  # from coarse to fine, beginning with "global"
    cross: bool = True  # whether a level looks at the one before it
    flat: bool = False  # one encoder for the sentences of all levels in one sequence, in place of the hierarchy
    score: str = "mean"  # of the levels' cosines, or "last"
    same: str = "labels"  # what tells texts that say the same: "labels" or "sentences"
    same_text: float = 0.8  # with "sentences": (cosine + 1) / 2 above which they do
    frames: int = 100  # rows of features read; of longer clips the beginning
    patch: int = 4  # rows a token
    width: int = 128  # of tokens and embeddings
    layers: int = 2  # of each encoder and of the decoder
    heads: int = 4  # of attention
    feed_forward: int = 384  # hidden channels
    dropout: float = 0.1  # in training
    temperature: float = 0.1  # of InfoNCE
    contrastive_weight: float = 1.0  # of InfoNCE; TMR has 0.1, with 500 epochs to go
    reconstructed: float = 0.25  # share of a batch that is reconstructed; the decoder costs more than the encoders

    def __post_init__(self) -> None:
        order = tuple(level for level in SLOTS if level in self.levels)
        if self.levels != order or "global" not in order:
            raise ValueError(f"levels are some of {', '.join(SLOTS)} in this order, with global; got {self.levels}.")
        if self.score not in ("mean", "last") or self.same not in ("labels", "sentences"):
            raise ValueError(f"score is mean or last, same is labels or sentences; got {self.score!r}, {self.same!r}.")

    def network(self) -> TMRConfig:
        """Of the networks inside."""
        return TMRConfig(
            motion_channels=SIZE * self.patch,
            text_channels=WIDTH,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward,
            dropout=self.dropout,
            temperature=self.temperature,
            contrastive_weight=self.contrastive_weight,
        )


class Level(NamedTuple):
    """What a text encoder makes of B texts of S sentences."""

    gaussian: Gaussian  # where they are in the shared space
    states: Tensor  # (B, S, W) output at every sentence
    mask: Tensor  # (B, S) which sentences are there

    @property
    def mean(self) -> Tensor:
        """(B, W)."""
        return self.gaussian.mean


class TextLevel(SequenceEncoder):
    """A text encoder whose tokens know which group or pair they are about, and look at the level before.

    Args:
        slots: S, sentences of a text.
        cross: whether there is a level before.
        config: sizes.
    """

    def __init__(self, slots: int, cross: bool, config: TMRConfig) -> None:
        super().__init__(config.text_channels, config)
        self.places = nn.Parameter(torch.randn(slots, config.width))
        self.look = None
        if cross:
            self.look = nn.MultiheadAttention(config.width, config.heads, config.dropout, batch_first=True)

    def forward(self, sentences: Tensor, mask: Tensor, before: Level | None = None) -> Level:
        """Sentences (B, S, C), which of them are there (B, S), and the level before, where the encoder looks at one."""
        sizes = check_shape("sentences", sentences, "B S C", S=len(self.places), C=self.projection.in_features)
        check_shape("mask", mask, "B S", B=sizes["B"], S=sizes["S"])
        x = self.projection(sentences) + self.places
        if self.look is not None:
            context = torch.cat([torch.stack([*before.gaussian], 1), before.states], 1)
            hidden = ~F.pad(before.mask, (2, 0), value=True)
            x = x + self.look(x, context, context, key_padding_mask=hidden, need_weights=False)[0]
        x = self.dropout(torch.cat([repeat(self.tokens, "two c -> b two c", b=sizes["B"]), x], 1))
        x = self.layers(x, src_key_padding_mask=~F.pad(mask, (2, 0), value=True))
        return Level(Gaussian(x[:, 0], x[:, 1]), x[:, 2:], mask)


class HierarchicalAligner(nn.Module):
    """Embeds motions, and texts at every level, in one space.

    Args:
        config: sizes, and what is left out.
    """

    def __init__(self, config: AlignerConfig | None = None) -> None:
        super().__init__()
        self.config = config = AlignerConfig() if config is None else config
        network = config.network()
        self.statistics = Statistics(size=SIZE)
        self.whitening = nn.ModuleDict({level: Whitening(WIDTH) for level in config.levels})
        self.motion_encoder = SequenceEncoder(network.motion_channels, network)
        self.motion_decoder = MotionDecoder(network)
        if config.flat:
            texts = {FLAT: TextLevel(sum(SLOTS[level] for level in config.levels), False, network)}
        else:
            texts = {level: TextLevel(SLOTS[level], config.cross and level != "global", network) for level in config.levels}
        self.text_encoders = nn.ModuleDict(texts)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the levels there are embeddings of, from coarse to fine; "flat" alone for a flat aligner."""
        return tuple(self.text_encoders)

    def tokens(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Unnormalised features (B, T, 263) as tokens (B, T / patch, 263 patch), normalised, and their mask.

        A last token that is not full repeats the last row.
        """
        check_shape("features", features, "B T D", D=SIZE)
        features, lengths = features[:, : self.config.frames], lengths.clamp(max=self.config.frames)
        patch = self.config.patch
        features = F.pad(self.statistics.normalize(features), (0, 0, 0, -features.shape[1] % patch))
        features = hold_last(features, lengths)
        mask = frame_mask(-(-lengths // patch), features.shape[1] // patch)
        return rearrange(features, "b (t p) c -> b t (p c)", p=patch), mask.to(features.device)

    def encode_motion(self, features: Tensor, lengths: Tensor) -> Gaussian:
        """Where motions, as unnormalised features (B, T, 263), are in the shared space: mean and log-variance (B, W)."""
        return Gaussian(*self.motion_encoder(*self.tokens(features, lengths)).unbind(1))

    def encode_texts(self, texts: Mapping[str, Tensor]) -> dict[str, Level]:
        """Where texts are in the shared space, level by level.

        Args:
            texts: sentence vectors under "text" (B, C), "groups" (B, 6, C) and "interactions" (B, 15, C), as far as the
                levels need them; zeros are no text. A batch of `kinelib.kinmo.data` will do.

        Returns:
            for every name in `names` its mean (B, W) and its states: (B, 1, W), (B, 6, W), (B, 15, W).

        Raises:
            KeyError: when the texts of a level are missing.
        """
        if missing := [FIELDS[level] for level in self.config.levels if FIELDS[level] not in texts]:
            raise KeyError(f"this aligner reads {', '.join(self.config.levels)}; the batch has no {', '.join(missing)}.")
        given = {level: texts[FIELDS[level]] for level in self.config.levels}
        given["global"] = rearrange(given["global"], "b c -> b 1 c")
        masks = {level: (vectors != 0).any(-1) for level, vectors in given.items()}
        given = {level: self.whitening[level](vectors) for level, vectors in given.items()}
        if self.config.flat:
            together = torch.cat([*given.values()], 1), torch.cat([*masks.values()], 1)
            return {FLAT: self.text_encoders[FLAT](*together)}
        levels: dict[str, Level] = {}
        for name, encoder in self.text_encoders.items():
            before = next(reversed(levels.values()), None)
            levels[name] = encoder(given[name], masks[name], before)
        return levels

    def similarities(self, means: Mapping[str, Tensor], motions: Tensor) -> Tensor:
        """How close texts (N, W) a level and motions (M, W) are, (N, M) in [-1, 1]: the mean of the levels' cosines (A7)."""
        used = self.names if self.config.score == "mean" else self.names[-1:]
        return torch.stack([similarity(means[name], motions) for name in used]).mean(0)

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The training loss of B pairs.

        Args:
            batch: features (B, T, 263) unnormalised, lengths (B,), texts as of :meth:`encode_texts`, labels (B,) integers.
            generator: of the latents' noise.

        Returns:
            "loss", what is minimised, and its terms, averaged over levels, without their weights; InfoNCE of every level.
        """
        network = self.config.network()
        tokens, mask = self.tokens(batch["features"], batch["lengths"])
        of_motion = Gaussian(*self.motion_encoder(tokens, mask).unbind(1))
        levels = self.encode_texts(batch)
        same, same_text = self._same(batch)
        contrastive = {
            name: info_nce(level.mean, of_motion.mean, network.temperature, same, same_text)
            for name, level in levels.items()
        }
        latent = of_motion.sample(generator)
        of_texts = {name: level.gaussian.sample(generator) for name, level in levels.items()}
        average = lambda terms: torch.stack([*terms]).mean()
        terms = {
            "reconstruction": self._reconstruction(latent, [*of_texts.values()], tokens, mask),
            "kl": average(kl_losses(level.gaussian, of_motion) for level in levels.values()),
            "latent": average(F.smooth_l1_loss(one, latent) for one in of_texts.values()),
            "contrastive": average(contrastive.values()),
        }
        weights = (network.reconstruction_weight, network.kl_weight, network.latent_weight, network.contrastive_weight)
        total = sum(weight * term for weight, term in zip(weights, terms.values(), strict=True))
        return {"loss": total} | terms | {f"contrastive, {name}": term.detach() for name, term in contrastive.items()}

    def _same(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, float]:
        """Vectors whose cosines tell clips that are no wrong answers for each other, and the threshold."""
        if self.config.same == "sentences":
            return batch["text"], self.config.same_text
        labels = batch["labels"]
        return (labels[:, None] == labels.unique()).float(), 0.75  # of one-hot vectors, whose cosine is 0 or 1

    def _reconstruction(self, motion: Tensor, texts: list[Tensor], tokens: Tensor, mask: Tensor) -> Tensor:
        """Of a share of the batch, from the motion's latent and, averaged over levels, from the texts'."""
        few = max(1, round(self.config.reconstructed * len(tokens)))
        latents = torch.cat([motion[:few], *(text[:few] for text in texts)])
        times = 1 + len(texts)
        decoded = self.motion_decoder(latents, mask[:few].repeat(times, 1))
        found = rearrange(decoded, "(times b) t c -> times b t c", b=few)[:, mask[:few]]
        errors = F.smooth_l1_loss(found, tokens[:few][mask[:few]].expand_as(found), reduction="none").mean((1, 2))
        return errors[0] + errors[1:].mean()
