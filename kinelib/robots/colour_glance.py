"""`ColourGlance`: where things of each colour are, in every view. Fixed after one look at the training pictures.

A fixed camera sees a scene whose background never changes. What differs from it (the median picture) is told apart by
colour: the centres of k-means over those pixels. A picture becomes, for every colour, how much of it there is, where its
middle is, and how far it spreads. These few hundred numbers say to a fraction of a pixel where a drawer stands, and are made
once for a whole training set: learning to act from them takes a small perceptron and minutes on one core. Convolutions with
spatial soft-max, trained end to end on the same two hundred demonstrations, had not begun to look at the scene by then.

Its limits: things of one colour are one thing, and a camera that moves has no background.

Shapes: pictures (B, V, 3, S, S) in [-1, 1], K colours, features (B, V * K * 5), standardised over the training set.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from kinelib.notation import cell_centres

FACTS = 5  # of a colour in a view: amount, middle x and y, spread in x and y
DIFFERS = 0.15  # in [-1, 1], by which a pixel must differ from the background in some channel
SOFTNESS = 0.02  # squared distance of colours at which belonging falls by e
ROUNDS = 12  # of k-means
SAMPLE = 6000  # pixels it is given
LOOKS = 128  # pictures it, and the background, are taken from
AT_ONCE = 8  # moments looked at together; with more, half of the time goes into mapping memory anew for every batch


class ColourGlance(nn.Module):
    """See the module docstring.

    Args:
        views: V.
        size: S.
        colours: K.
    """

    def __init__(self, views: int, size: int, colours: int) -> None:
        super().__init__()
        features = views * colours * FACTS
        self.register_buffer("background", torch.zeros(views, 3, size, size))
        self.register_buffer("colours", torch.zeros(colours, 3))
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        places = cell_centres(size, size)
        moments = torch.cat([torch.ones(len(places), 1), places, places.square()], dim=1)
        self.register_buffer("moments", moments, persistent=False)

    @property
    def features(self) -> int:
        """How many numbers a glance gives."""
        return len(self.shift)

    @torch.no_grad()
    def measure(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Finds background, colours and statistics, and returns the features (M, features) of all pictures.

        Args:
            pictures: (M, V, S, S, 3) uint8.
            generator: draws the pictures and pixels that are looked at.
        """
        chosen = torch.randperm(len(pictures), generator=generator)[:LOOKS]
        some = model_frames(pictures[chosen])
        self.background.copy_(some.median(dim=0).values)
        pixels = rearrange(some, "b v c h w -> b v h w c")[self._differs(some)]
        pixels = pixels[torch.randperm(len(pixels), generator=generator)[:SAMPLE]]
        self.colours.copy_(k_means(pixels, len(self.colours), generator))
        raw = self._raw(pictures)
        self.shift.copy_(raw.mean(0))
        self.scale.copy_(raw.std(0).clamp_min(1e-3))
        return (raw - self.shift) / self.scale

    def forward(self, frames: Tensor) -> Tensor:
        """Features (B, V * K * 5) of pictures (B, V, 3, S, S)."""
        return (self._facts(frames) - self.shift) / self.scale

    @torch.no_grad()
    def look(self, pictures: Tensor) -> Tensor:
        """Features (M, V * K * 5) of many pictures (M, V, S, S, 3) uint8."""
        return (self._raw(pictures) - self.shift) / self.scale

    def _raw(self, pictures: Tensor) -> Tensor:
        return torch.cat([self._facts(model_frames(part)) for part in pictures.split(AT_ONCE)])

    def _differs(self, frames: Tensor) -> Tensor:
        return (frames - self.background).abs().amax(2) > DIFFERS

    def _facts(self, frames: Tensor) -> Tensor:
        """Only pixels that differ from the background are visited: a tenth of all."""
        batch, views = frames.shape[:2]
        where = rearrange(self._differs(frames), "b v h w -> (b v) (h w)").nonzero()
        pixels = rearrange(frames, "b v c h w -> (b v) (h w) c")[where[:, 0], where[:, 1]]
        belongs = (-_squared(pixels, self.colours) / SOFTNESS).softmax(-1)
        sums = frames.new_zeros(batch * views, len(self.colours), FACTS)
        sums.index_add_(0, where[:, 0], belongs[:, :, None] * self.moments[where[:, 1]][:, None])
        amount = sums[..., :1]
        # One pixel more than there are: what is hardly there lies in the middle of the picture, and moves there smoothly.
        middle, square = sums[..., 1:3] / (amount + 1), sums[..., 3:] / (amount + 1)
        spread = (square - middle.square()).clamp_min(0).sqrt()
        facts = torch.cat([amount.clamp_min(0).log1p(), middle, spread], dim=-1)
        return rearrange(facts, "(b v) k f -> b (v k f)", v=views)


def k_means(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, 3) centres of points (N, 3), begun from points drawn far apart (k-means++)."""
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    while len(centres) < count:
        far = _squared(points, centres).amin(1).clamp_min(0) + 1e-9
        centres = torch.cat([centres, points[torch.multinomial(far, 1, generator=generator)]])
    for _ in range(ROUNDS):
        nearest = _squared(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=count)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    return centres


def _squared(points: Tensor, centres: Tensor) -> Tensor:
    """Squared distances (N, K)."""
    return points.square().sum(1, keepdim=True) - 2 * points @ centres.T + centres.square().sum(1)


def model_frames(pictures: Tensor) -> Tensor:
    """(B, V, S, S, 3) uint8 as (B, V, 3, S, S) in [-1, 1]."""
    return rearrange(pictures, "b v h w c -> b v c h w").float() / 127.5 - 1


def noisy(features: Tensor, amount: float, generator: torch.Generator | None) -> Tensor:
    """Standardised features (B, F) with noise of a standard deviation: scenes are not to be learnt by heart."""
    return features + amount * torch.randn(features.shape, generator=generator, device=features.device)
