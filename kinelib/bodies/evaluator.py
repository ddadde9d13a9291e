"""A small TMR of our own, in whose space generated motion is measured: does it follow its text, is it like real motion?

It reads the part of Kimodo's features that Kimodo's benchmark evaluates with: root (3), heading (2), positions of all joints
but the root (3 (J - 1)), velocities (3 J) and contacts (4); no rotations. Every clip is placed above the origin and faces +z
at first, so that where a clip happens cannot matter.

Departures from TMR, for a training of minutes on one core: `patch` frames make one token; texts are embedded by MiniLM; and
which texts say the same is told by the clips' labels instead of sentence vectors, for in those "raises the left hand" and
"raises the right hand" are neighbours, and telling them apart is what the evaluator is for. How it is trained: see
`kinelib.bodies.evaluator_training`.

Numbers measured with this evaluator are not comparable with those of any other.

Shapes: features (B, T, D), lengths (B,), embeddings (B, C) of length one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import FeatureLayout, encode_motions, frame_mask, hold_last, placed
from kinelib.bodies.frechet import frechet_distance
from kinelib.bodies.motion import Motion
from kinelib.bodies.retrieval import KIMODO_THRESHOLD, Retrieval, mm_distance, with_threshold
from kinelib.bodies.skeletons import FPS, named
from kinelib.bodies.tmr import TMR, TMRConfig
from kinelib.learning.text import Text, TextEncoder
from kinelib.notation import ShapeError, check_shape

TEXT_CHANNELS = 384  # of MiniLM's word pieces


def evaluated_channels(layout: FeatureLayout) -> list[int]:
    """The channels the evaluator reads: 6 J + 6 of 12 J + 9."""
    blocks = layout.blocks
    first_joint = blocks["positions"].start + 3
    kept = [layout.root, slice(first_joint, blocks["positions"].stop), blocks["velocities"], blocks["contacts"]]
    return [channel for part in kept for channel in range(part.start, part.stop)]


@dataclass(frozen=True)
class EvaluatorConfig:
    """What the evaluator is built from."""

    skeleton: str = "smplx22"  # whose motion it reads
    fps: float = FPS  # frames a second
    frames: int = 100  # longest clip; of longer ones the beginning is seen
    patch: int = 4  # frames a token; 1 is TMR's
    width: int = 128  # of tokens and embeddings
    layers: int = 2  # of each encoder and of the decoder
    heads: int = 4  # of attention
    feed_forward: int = 384  # hidden channels
    dropout: float = 0.1  # in training
    temperature: float = 0.1  # of InfoNCE
    contrastive_weight: float = 1.0  # TMR has 0.1, with 500 epochs to go
    reconstructed: float = 0.25  # share of a batch that is reconstructed

    def network(self) -> TMRConfig:
        """Of the networks inside."""
        layout = FeatureLayout(named(self.skeleton))
        return TMRConfig(
            motion_channels=len(evaluated_channels(layout)) * self.patch,
            text_channels=TEXT_CHANNELS,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward,
            dropout=self.dropout,
            temperature=self.temperature,
            same_text=0.75,  # of one-hot labels, whose cosine is 0 or 1
            contrastive_weight=self.contrastive_weight,
            reconstructed=self.reconstructed,
        )


class MotionEvaluator(nn.Module):
    """Embeds motions and texts in one space.

    Args:
        config: sizes.
    """

    def __init__(self, config: EvaluatorConfig | None = None) -> None:
        super().__init__()
        self.config = config = EvaluatorConfig() if config is None else config
        self.layout = FeatureLayout(named(config.skeleton))
        self.channels = evaluated_channels(self.layout)
        self.statistics = Statistics(size=len(self.channels))
        self.tmr = TMR(config.network())

    def inputs(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Kimodo's features (B, T, D), unnormalised, as tokens (B, T / patch, ...) and their mask.

        A last token that is not full repeats the last frame.
        """
        check_shape("features", features, "B T D", D=self.layout.size)
        features, lengths = features[:, : self.config.frames], lengths.clamp(max=self.config.frames)
        ahead = torch.zeros(len(features), device=features.device)
        features = self.statistics.normalize(placed(features, self.layout, heading=ahead)[0][..., self.channels])
        patch = self.config.patch
        features = F.pad(features, (0, 0, 0, -features.shape[1] % patch))
        features = hold_last(features, lengths)
        mask = frame_mask(-(-lengths // patch), features.shape[1] // patch)
        return rearrange(features, "b (t p) c -> b t (p c)", p=patch), mask.to(features.device)

    def embed_features(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings (B, C) of clips as Kimodo's features (B, T, D), unnormalised."""
        return F.normalize(self.tmr.encode_motion(*self.inputs(features, lengths)).mean, dim=-1)

    @torch.no_grad()
    def embed_motions(self, motions: Sequence[Motion], *, batch: int = 64) -> Tensor:
        """Embeddings (N, C) of motions, which are encoded anew: velocities and contacts are those of the joints.

        Raises:
            ShapeError: for motions of another skeleton or frame rate.
        """
        for number, motion in enumerate(motions):
            if motion.skeleton.joints != self.layout.known_skeleton().joints or abs(motion.fps - self.config.fps) > 1e-6:
                raise ShapeError(
                    f"motion {number} is {motion.skeleton.name} at {motion.fps:g} fps; this evaluator reads "
                    f"{self.config.skeleton} at {self.config.fps:g}: retarget and resample it first."
                )
        groups = [motions[first : first + batch] for first in range(0, len(motions), batch)]
        device = self.statistics.mean.device
        done = [(features.to(device), lengths) for features, lengths in map(encode_motions, groups)]
        return torch.cat([self.embed_features(*one) for one in done]).cpu()

    @torch.no_grad()
    def embed_texts(self, sentences: Sequence[str], encoder: TextEncoder | None = None, *, batch: int = 256) -> Tensor:
        """Embeddings (N, C) of sentences; each different one is encoded once."""
        encoder = TextEncoder() if encoder is None else encoder
        rows = {sentence: row for row, sentence in enumerate(dict.fromkeys(sentences))}
        different, device = list(rows), self.statistics.mean.device
        texts = [encoder.encode(different[at : at + batch]).to(device) for at in range(0, len(different), batch)]
        found = torch.cat([F.normalize(self.tmr.encode_text(*text).mean, dim=-1) for text in texts])
        return found[[rows[sentence] for sentence in sentences]].cpu()

    def loss(
        self, features: Tensor, lengths: Tensor, text: Text, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """TMR's loss of pairs of motion and text.

        Args:
            features: (B, T, D) unnormalised.
            lengths: (B,).
            text: of the B clips.
            labels: (B,) integers; clips of one label are no wrong answers for each other.
            generator: of the latents' noise.
        """
        one_hot = (labels[:, None] == labels.unique()).float()
        return self.tmr.loss(*self.inputs(features, lengths), *text, one_hot, generator)


@dataclass(frozen=True)
class Scores:
    """What the evaluator says of motions and the texts they were made for."""

    retrieval: Retrieval  # protocol (b) with Kimodo's threshold: from text to motion and back
    mm_distance: float  # mean distance of a text and its motion, 0..2
    frechet: float | None  # distance to real motions, where some were given
    real: int  # how many

    def rows(self) -> dict[str, float]:
        """As a flat table; galleries stand beside the numbers that depend on them."""
        found = self.retrieval
        numbers = {f"{name} of {found.gallery}": value for name, value in found.text_to_motion.items()}
        numbers |= {f"{name} of {found.gallery}, motion to text": value for name, value in found.motion_to_text.items()}
        numbers |= {f"{name} by chance": value for name, value in found.chance.items()}
        numbers["MM-Dist"] = self.mm_distance
        return numbers if self.frechet is None else numbers | {f"FID to {self.real}": self.frechet}


def evaluate(
    evaluator: MotionEvaluator,
    motions: Sequence[Motion],
    sentences: Sequence[str],
    real: Sequence[Motion] | None = None,
    *,
    encoder: TextEncoder | None = None,
) -> Scores:
    """Measures motions against the sentences they were made for and, for the Frechet distance, against real motions.

    Args:
        evaluator: trained.
        motions: N, of its skeleton and frame rate.
        sentences: N, in the same order. Equal and nearly equal ones share their motions as right answers.
        real: any number of real motions, at least 2; None: no Frechet distance.
        encoder: of the sentences.

    Raises:
        ShapeError: when the numbers of motions and sentences differ, or motions do not fit.
    """
    if len(motions) != len(sentences):
        raise ShapeError(f"{len(motions)} motions do not fit {len(sentences)} sentences.")
    encoder = TextEncoder() if encoder is None else encoder
    of_motions, of_texts = evaluator.embed_motions(motions), evaluator.embed_texts(sentences, encoder)
    found = with_threshold(
        of_texts @ of_motions.T, encoder.embed(list(sentences)).cpu(), KIMODO_THRESHOLD, right_ties_count=False
    )
    frechet = None if real is None else frechet_distance(evaluator.embed_motions(real), of_motions)
    return Scores(found, mm_distance(of_texts, of_motions), frechet, 0 if real is None else len(real))
