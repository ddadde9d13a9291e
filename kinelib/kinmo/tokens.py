"""`MotionTokenizer`: a motion as a short table of codes, one row for four frames and one column for each group of joints.

An encoder of strided convolutions reads normalised features, a residual quantiser replaces its vectors by codes, a decoder
turns codes into features. KinMo takes MoMask's, one stream for the whole body. Here the default is six streams, one for each
kinematic group, with encoder, decoder and codebooks of its own: a group's channels are decoded from that group's tokens
alone, so that exchanging its tokens changes its features and no others. The root, on which all ride, is the torso's.
`streams="body"` is the one stream, for comparison. (The paper does not say what edits do to other groups; this is ours.)

Loss: SmoothL1 of all features + 0.5 of the positions again + commitment, as MoMask's, and two terms of the joints that the
features *integrate* to: where they are in metres, so that the root's path drifts less, and how feet in contact step.

The nets are small: patches of four frames are linear maps with two neighbours, all else runs at a fourth of the frame rate,
and the six streams are one batched matrix product a layer, fast on one core. No layer normalises, as in MoMask. Linear maps
to four frames each jitter; a low-pass filter over what is decoded takes that out (`smoothing`).

Shapes: features (B, T, 263) unnormalised; L = ceil(T / 4) tokens; codes (B, L, G, Q) long, 0 beyond a clip's end;
latents (B, L, G, C); inside, activations (G, B, L, C).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.humanml3d import CONTACTS, SIZE, SLICES, recover
from kinelib.bodies.low_pass import REACH as FILTER_REACH
from kinelib.bodies.low_pass import filter_matrices
from kinelib.kinmo.codec import GROUP_CHANNELS
from kinelib.kinmo.quantizer import QuantizerConfig, ResidualQuantizer
from kinelib.notation import check_shape

STRIDE = 4  # frames a token
STREAMS = {"groups": GROUP_CHANNELS, "body": {"body": tuple(range(SIZE))}}


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of the tokenizer, and the weights of its loss."""

    streams: str = "groups"  # or "body": one stream for all channels
    width: int = 96  # channels of every stream's convolutions
    blocks: int = 2  # residual blocks of encoder and decoder each; block i looks 2^i tokens to either side
    layers: int = 3  # codebooks of every stream
    codes: int = 256  # codes of every codebook
    code_width: int = 48  # channels of a code
    decay: float = 0.98  # of the codebooks' moving averages
    dead: float = 0.1  # share of a fair count below which a code is revived
    layer_dropout: float = 0.2  # share of training batches that use only the first few codebooks
    position_weight: float = 0.5  # of the positions' own term
    commitment_weight: float = 0.02  # of the distance between vectors and codes
    joint_weight: float = 2.0  # of joints in the world, metres
    foot_weight: float = 3.0  # of the steps of feet in contact, metres a frame
    smoothing: float = 1.0  # frames, deviation of a Gaussian over what is decoded; 0 for none, as in MoMask

    def __post_init__(self) -> None:
        if self.streams not in STREAMS:
            raise ValueError(f"streams is one of {', '.join(STREAMS)}; got {self.streams!r}.")
        if min(self.width, self.blocks, self.layers, self.codes, self.code_width) < 1:
            raise ValueError(f"width, blocks, layers, codes and code_width are at least 1; got {self}.")
        if not 0 <= self.smoothing < math.inf:
            raise ValueError(f"smoothing is 0 frames or more; got {self.smoothing}.")

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the streams, in the order of the codes' axis."""
        return tuple(STREAMS[self.streams])


class StreamConv(nn.Module):
    """A convolution over three tokens for every stream of its own, as one batched product.

    Args:
        streams: G.
        inputs, outputs: channels.
        dilation: tokens to the neighbours.
    """

    def __init__(self, streams: int, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        bound = 1 / math.sqrt(3 * inputs)
        self.weight = nn.Parameter(torch.empty(streams, 3 * inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(streams, 1, outputs))
        self.dilation = dilation

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """(G, B, L, inputs) -> (G, B, L, outputs); tokens that are not `there` (B, L, 1) count as zero."""
        x, d, length = x * there, self.dilation, x.shape[2]
        wide = F.pad(x, (0, 0, d, d))
        near = torch.cat([wide[:, :, :length], x, wide[:, :, 2 * d :]], -1)
        y = torch.baddbmm(self.bias, rearrange(near, "g b l c -> g (b l) c"), self.weight)
        return rearrange(y, "g (b l) c -> g b l c", l=length)


class StreamNet(nn.Module):
    """A convolution in, residual blocks that look further and further, a convolution out."""

    def __init__(self, config: TokenizerConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        streams, width = len(config.groups), config.width
        self.first = StreamConv(streams, inputs, width)
        self.blocks = nn.ModuleList(StreamConv(streams, width, width, 2**i) for i in range(config.blocks))
        self.mixes = nn.ParameterList(torch.randn(streams, width, width) / width for _ in range(config.blocks))
        self.last = StreamConv(streams, width, outputs)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """(G, B, L, inputs) -> (G, B, L, outputs); see :class:`StreamConv`."""
        x = self.first(x, there)
        for block, mix in zip(self.blocks, self.mixes, strict=True):
            x = x + torch.einsum("gblc,gcd->gbld", F.silu(block(F.silu(x), there)), mix)
        return self.last(F.silu(x), there)

    @property
    def reach(self) -> int:
        """Tokens to either side on which an output depends."""
        return 2 + sum(block.dilation for block in self.blocks)


class MotionTokenizer(nn.Module):
    """Encoder, residual codebooks and decoder of motion tokens.

    Args:
        config: sizes; None: the defaults.
    """

    def __init__(self, config: TokenizerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TokenizerConfig()
        self.statistics = Statistics(size=SIZE)
        channels = list(STREAMS[config.streams].values())
        widest = max(map(len, channels))
        # Narrow streams are filled up with a channel that is always zero, number 263.
        table = torch.tensor([[*own, *[SIZE] * (widest - len(own))] for own in channels])
        self.register_buffer("channels", table, persistent=False)
        self.register_buffer("places", table.flatten().argsort()[:SIZE], persistent=False)
        self.encoder = StreamNet(config, STRIDE * widest, config.code_width)
        self.decoder = StreamNet(config, config.code_width, STRIDE * widest)
        sizes = (config.layers, config.codes, config.code_width, config.decay, config.dead, config.layer_dropout)
        self.quantizer = ResidualQuantizer(QuantizerConfig(len(channels), *sizes))

    @property
    def reach(self) -> int:
        """Tokens to either side that a token's four decoded frames depend on; frames further away do not change."""
        return self.decoder.reach + math.ceil(FILTER_REACH * self.config.smoothing / STRIDE)

    def encode(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The codes of clips.

        Args:
            features: (B, T, 263) unnormalised.
            lengths: (B,) frames of every clip, 1 to T; None: T. What lies beyond has no influence.

        Returns:
            (B, L, G, Q) long, L = ceil(T / 4); 0 beyond ceil(length / 4).
        """
        latents, there = self.latents(features, lengths)
        codes = self.quantizer.codes(rearrange(latents, "b l g c -> g (b l) c"))
        return rearrange(codes, "g (b l) q -> b l g q", b=len(features)) * there[..., None, None]

    def decode(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The features of codes, of all their layers or the first few.

        Args:
            codes: (B, L, G, q) long, 1 <= q <= Q.
            lengths: (B,) *frames* of every clip, 1 to 4 L; None: 4 L.

        Returns:
            (B, 4 L, 263) unnormalised; what lies beyond a length means nothing.
        """
        return self.decode_latents(self.embed(codes), lengths)

    def latents(self, features: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The vectors (B, L, G, C) before quantisation, and which tokens (B, L) bool are there."""
        batch, frames = check_shape("features", features, f"B T {SIZE}").values()
        lengths = self._checked(lengths, batch, frames, features.device)
        tokens = -(-frames // STRIDE)
        # The last frame goes on to the end of its token and beyond, whatever the padding holds.
        at = torch.minimum(torch.arange(STRIDE * tokens, device=features.device), lengths[:, None] - 1)
        normal = self.statistics.normalize(features[torch.arange(batch, device=at.device)[:, None], at])
        by_group = F.pad(normal, (0, 1))[..., self.channels]
        patches = rearrange(by_group, "b (l s) g c -> g b l (s c)", s=STRIDE)
        there = self._there(lengths, tokens)
        return rearrange(self.encoder(patches, there[..., None]), "g b l c -> b l g c"), there

    def embed(self, codes: Tensor) -> Tensor:
        """The vectors (B, L, G, C) that codes (B, L, G, q) stand for, or the mean ones of probabilities (B, L, G, q, K)."""
        if codes.is_floating_point():
            soft = self.quantizer.expected(rearrange(codes, "b l g q k -> g (b l) q k"))
            return rearrange(soft, "g (b l) c -> b l g c", b=len(codes))
        check_shape("codes", codes, "B L G Q", G=len(self.config.groups))
        return rearrange(
            self.quantizer.vectors(rearrange(codes, "b l g q -> g (b l) q")), "g (b l) c -> b l g c", b=len(codes)
        )

    def decode_latents(self, latents: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features (B, 4 L, 263) of vectors (B, L, G, C); differentiable, see :meth:`decode`."""
        batch, tokens, *_ = latents.shape
        lengths = self._checked(lengths, batch, STRIDE * tokens, latents.device)
        there = self._there(lengths, tokens)[..., None]
        patches = self.decoder(rearrange(latents, "b l g c -> g b l c"), there)
        flat = rearrange(patches, "g b l (s c) -> b (l s) (g c)", s=STRIDE)[..., self.places]
        if self.config.smoothing:
            flat = filter_matrices(lengths, flat.shape[1], self.config.smoothing).to(flat) @ flat
        return self.statistics.denormalize(flat)

    def loss(self, features: Tensor, lengths: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The terms of the loss of a batch; in training mode the codebooks learn from it.

        Args:
            features: (B, T, 263) unnormalised. lengths: (B,) frames.
            generator: of dropout and revival, on the device of the features.
        """
        latents, there = self.latents(features, lengths)
        vectors = latents[there]  # padding must not own codes
        quantized, _, commitment = self.quantizer(rearrange(vectors, "n g c -> g n c"), generator)
        filled = torch.zeros_like(latents)
        filled[there] = rearrange(quantized, "g n c -> n g c")
        made = self.decode_latents(filled, lengths)[:, : features.shape[1]]
        real = torch.arange(features.shape[1], device=features.device) < lengths.to(features.device)[:, None]
        gap = F.smooth_l1_loss(
            self.statistics.normalize(made)[real], self.statistics.normalize(features)[real], reduction="none"
        )
        own, wanted = recover(made), recover(features)
        joints = (own - wanted).abs().sum(-1)[real].mean()
        feet = _sliding(own, wanted, features, real)
        terms = {"features": gap.mean(), "positions": gap[:, SLICES["positions"]].mean(), "commitment": commitment}
        terms |= {"joints": joints, "feet": feet}
        c = self.config
        weights = (1.0, c.position_weight, c.commitment_weight, c.joint_weight, c.foot_weight)
        total = sum(weight * term for weight, term in zip(weights, terms.values(), strict=True))
        return {"loss": total, **terms}

    def _there(self, lengths: Tensor, tokens: int) -> Tensor:
        return torch.arange(tokens, device=lengths.device) * STRIDE < lengths[:, None]

    def _checked(self, lengths: Tensor | None, batch: int, frames: int, device: torch.device) -> Tensor:
        if lengths is None:
            return torch.full((batch,), frames, device=device)
        check_shape("lengths", lengths, "B", B=batch)
        if int(lengths.min()) < 1 or int(lengths.max()) > frames:
            raise ValueError(f"lengths are 1 to {frames} frames here; got {int(lengths.min())} to {int(lengths.max())}.")
        return lengths.to(device)


def _sliding(own: Tensor, wanted: Tensor, features: Tensor, real: Tensor) -> Tensor:
    """How far, metres a frame, the feet's steps are from the original's where those are in contact with the floor."""
    steps = [joints[:, 1:, CONTACTS] - joints[:, :-1, CONTACTS] for joints in (own, wanted)]
    planted = features[:, :-1, SLICES["contacts"]] * real[:, 1:, None]
    return ((steps[0] - steps[1]).abs().sum(-1) * planted).sum() / planted.sum().clamp_min(1)
