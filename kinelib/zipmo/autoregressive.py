"""The autoregressive baseline: one point after the other, one piece of time after the other, each as a Gaussian mixture.

In the manner of the flow poke transformer (Baumann et al. 2025): given the frame and the pokes, the motion of a queried
point is an explicit distribution, and a point that was drawn is known to those drawn after it.

A track is cut into pieces of 16 frames, and the displacement since the last piece is written in polynomials of time. All
pieces of one time come before the next; inside one, the points come in random order, singly at first (so that every object
decides once), then in groups as large as what is already known. A group's points do not see each other. Every piece is two
tokens: a query, which knows where and when, and gives the mixture; and a known one, which also holds the answer, and is all
that later tokens see. So one pass with a mask gives every likelihood of a clip, and drawing keeps keys and values.

Differs from the published model: trajectories in time, where that one predicts one displacement a query; known tokens beside
the pokes, which stay conditions as in our planner (there, pokes are the only known tokens); our small frame features and
blocks instead of a pretrained backbone; a fixed distance bias instead of rotary positions; groups of points, which share
no choice but the ones before them; a floor under the deviations, because points at rest have no finite likelihood.

Shapes: tracks (B, N, T, 2), numbers of a piece (B, N, S, V) for S pieces of V = 2 * basis_size, tokens (B, L, d).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention, softplus

from kinelib.learning.layers import DistanceBias
from kinelib.learning.text import Text
from kinelib.notation import ShapeError, check_finite, check_shape
from kinelib.tracks.timing import resample_time
from kinelib.zipmo.blocks import split_heads
from kinelib.zipmo.conditions import ConditionEncoder, check_pokes
from kinelib.zipmo.point_features import position_features, sample_map
from kinelib.zipmo.temporal_basis import SCALE

PIECE_SCALE, FALL = 0.1, 5.0  # a typical displacement of a piece, and how much less every higher power explains
OFFSET, FIRST_SIGMA = 0.5, 0.5  # of an untrained mixture: how far its components lie apart, and their deviation


@dataclass(frozen=True)
class AutoregressiveConfig:
    """Sizes of the autoregressive baseline; the defaults equal the shipped planner's where they can."""

    num_frames: int = 64  # T
    piece: int = 16  # frames a token; divides num_frames
    basis_size: int = 3  # polynomials a piece and axis; three leave 0.1 pixels of 256 unexplained
    components: int = 8  # Gaussians a mixture
    singles: int = 8  # points of every piece that are drawn one by one, before groups
    least_sigma: float = 1e-3  # floor of the deviations, in units of the tracks
    frame_size: int = 64  # pixels of the square first frame
    width: int = 160  # d of the tokens
    image_width: int = 64  # channels of the image features
    depth: int = 5  # blocks
    heads: int = 5  # attention heads
    max_pokes: int = 16  # most pokes seen in training
    drop: float = 0.1  # share of training clips whose pokes are hidden


class MotionPieces(nn.Module):
    """Writes tracks as polynomials, piece by piece, each from where the written piece before it ended: errors do not add up.

    Raises:
        ShapeError: when `piece` does not divide `num_frames`, or holds fewer frames than polynomials.
    """

    def __init__(self, num_frames: int, piece: int, basis_size: int) -> None:
        super().__init__()
        if num_frames % piece:
            raise ShapeError(f"pieces of {piece} frames do not divide {num_frames} frames.")
        if not 1 <= basis_size < piece:
            raise ShapeError(f"a piece of {piece} frames takes 1 to {piece - 1} polynomials; got {basis_size}.")
        self.count = num_frames // piece
        # No constant: a piece starts where the last one ended. The first one holds the frame that all motion starts from.
        steps = torch.arange(piece).expand(self.count, -1) + (torch.arange(self.count) > 0)[:, None]
        powers = (steps[..., None].double() / piece) ** torch.arange(1, basis_size + 1)
        functions = torch.linalg.qr(powers)[0].float() * piece**0.5  # rms 1 over a piece
        # QR fixes functions up to a sign, which we choose so that motion to the right has positive first numbers, and leaves
        # rounding errors in the first frame.
        functions = functions * functions[:, -1:].sign() * (steps > 0)[..., None]
        unit = PIECE_SCALE / FALL ** torch.arange(basis_size)
        self.register_buffer("functions", functions * unit, persistent=False)  # (S, w, D)
        self.register_buffer("dual", functions / (piece * unit), persistent=False)  # (S, w, D)
        self.register_buffer("unit", repeat(unit, "d -> (d 2)"), persistent=False)  # (V,), one number's size in the tracks

    def encode(self, tracks: Tensor) -> Tensor:
        """(B, N, T, 2) tracks to numbers (B, N, S, V)."""
        pieces = rearrange(tracks - tracks[:, :, :1], "b n (s w) c -> s b n w c", s=self.count)
        end, numbers = torch.zeros_like(tracks[:, :, 0]), []
        for piece, functions, dual in zip(pieces, self.functions, self.dual, strict=True):
            number = torch.einsum("bnwc,wd->bndc", piece - end[:, :, None], dual)
            end = end + torch.einsum("bndc,d->bnc", number, functions[-1])
            numbers.append(rearrange(number, "b n d c -> b n (d c)"))
        return torch.stack(numbers, dim=2)

    def steps(self, numbers: Tensor) -> Tensor:
        """How far numbers (..., S, V) carry a point from the start to the end of every piece: (..., S, 2)."""
        return torch.einsum("...sdc,sd->...sc", rearrange(numbers, "... (d c) -> ... d c", c=2), self.functions[:, -1])

    def decode(self, numbers: Tensor) -> Tensor:
        """Numbers (..., S, V) to displacements (..., T, 2), exactly zero in the first frame."""
        steps = self.steps(numbers)
        curve = torch.einsum("...sdc,swd->...swc", rearrange(numbers, "... (d c) -> ... d c", c=2), self.functions)
        return rearrange(curve + (steps.cumsum(dim=-2) - steps)[..., None, :], "... s w c -> ... (s w) c")


class Mixture(NamedTuple):
    """Gaussian mixtures with full covariances: number i of a component varies by `sigma` about a line in numbers before i.

    logits (..., M), mean (..., M, V), sigma (..., M, V), lean (..., M, V, V) strictly lower triangular.
    """

    logits: Tensor
    mean: Tensor
    sigma: Tensor
    lean: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density (...) of numbers (..., V), in nats."""
        offset = x[..., None, :] - self.mean
        standard = (offset + (self.lean * offset[..., None, :]).sum(dim=-1)) / self.sigma
        each = -(standard.square() / 2 + self.sigma.log() + math.log(2 * math.pi) / 2).sum(dim=-1)
        return (self.logits.log_softmax(dim=-1) + each).logsumexp(dim=-1)

    def draw(self, generator: torch.Generator) -> Tensor:
        """One draw (..., V) of every mixture."""
        chosen = torch.multinomial(self.logits.softmax(dim=-1).flatten(0, -2), 1, generator=generator)
        chosen = chosen.reshape(*self.logits.shape[:-1], 1, 1)
        mean, sigma = (torch.take_along_dim(x, chosen, dim=-2).squeeze(-2) for x in (self.mean, self.sigma))
        lean = torch.take_along_dim(self.lean, chosen[..., None], dim=-3).squeeze(-3)
        noise = sigma * torch.randn(sigma.shape, generator=generator, device=sigma.device)
        # Ones on the diagonal are implied; the solver reads nothing on or above it.
        return mean + torch.linalg.solve_triangular(lean, noise[..., None], upper=False, unitriangular=True).squeeze(-1)


class MixtureHead(nn.Module):
    """Reads mixtures over V numbers off tokens."""

    def __init__(self, width: int, components: int, floor: Tensor) -> None:
        super().__init__()
        self.components, self.size = components, len(floor)
        self.register_buffer("floor", floor, persistent=False)  # (V,)
        self.register_buffer("below", torch.tril_indices(self.size, self.size, -1), persistent=False)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, components * (1 + 2 * self.size + self.below.shape[1]))
        with torch.no_grad():  # components that start alike stay alike
            self.out.weight *= 0.1
            bias = rearrange(self.out.bias.zero_(), "(m v) -> m v", m=components)
            bias[:, 1 : 1 + self.size].normal_(0, OFFSET)
            bias[:, 1 + self.size : 1 + 2 * self.size] = math.log(math.expm1(FIRST_SIGMA))

    def forward(self, tokens: Tensor) -> Mixture:
        """(..., d) to mixtures (...)."""
        numbers = rearrange(self.out(self.norm(tokens)), "... (m v) -> ... m v", m=self.components)
        logits, mean, spread, entries = numbers.split([1, self.size, self.size, self.below.shape[1]], dim=-1)
        lean = numbers.new_zeros(*numbers.shape[:-1], self.size, self.size)
        lean[..., self.below[0], self.below[1]] = entries
        return Mixture(logits.squeeze(-1), mean, self.floor + softplus(spread), lean)


class Scene(NamedTuple):
    """What does not change while points are drawn: place (B, N, d), starts (B, N, 2), conditions and their mask.

    contexts: keys and values (B, heads, M, c) of the conditions, two a block; keep (B, 1, 1, M).
    """

    place: Tensor
    starts: Tensor
    contexts: list[Tensor]
    keep: Tensor

    def repeat(self, samples: int) -> Scene:
        """Every clip `samples` times in a row."""
        again = lambda x: x.repeat_interleave(samples, 0)
        return Scene(again(self.place), again(self.starts), [again(x) for x in self.contexts], again(self.keep))


class Memory:
    """Keys and values of the known tokens of every block, in room made beforehand, and where these tokens start."""

    def __init__(self, blocks: int, shape: tuple[int, int, int, int], like: Tensor) -> None:
        self.keys, self.values = (like.new_empty(blocks, *shape) for _ in range(2))
        self.starts = like.new_empty(shape[0], shape[2], 2)
        self.filled = 0

    def with_new(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What was known and, behind it, keys and values (B, heads, L, c) of new tokens."""
        end = self.filled + keys.shape[2]
        self.keys[block, :, :, self.filled : end], self.values[block, :, :, self.filled : end] = keys, values
        return self.keys[block, :, :, :end], self.values[block, :, :, :end]

    def keep(self, starts: Tensor) -> None:
        """Makes the first of the new tokens, those that start at (B, n, 2), known; the others are forgotten."""
        self.starts[:, self.filled : self.filled + starts.shape[1]] = starts
        self.filled += starts.shape[1]


class CausalBlock(nn.Module):
    """Self-attention under a mask, cross-attention to the conditions, feed-forward; each pre-normed and residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.self_norm, self.cross_norm, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.self_in, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.cross_q, self.cross_kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def context(self, conditions: Tensor) -> list[Tensor]:
        """Keys and values of the conditions, to be computed once."""
        return [split_heads(x, self.heads) for x in self.cross_kv(conditions).chunk(2, dim=-1)]

    def forward(self, tokens: Tensor, bias: Tensor, context: list[Tensor], keep: Tensor, remember: Callable) -> Tensor:
        """`bias` (B, heads, L, known + L) is -inf where a token may not look; `remember` puts what is known before."""
        q, k, v = (split_heads(x, self.heads) for x in self.self_in(self.self_norm(tokens)).chunk(3, dim=-1))
        attended = scaled_dot_product_attention(q, *remember(k, v), attn_mask=bias)
        tokens = tokens + self.self_out(rearrange(attended, "b h l c -> b l (h c)"))
        q = split_heads(self.cross_q(self.cross_norm(tokens)), self.heads)
        attended = scaled_dot_product_attention(q, *context, attn_mask=keep)
        tokens = tokens + self.cross_out(rearrange(attended, "b h l c -> b l (h c)"))
        return tokens + self.shrink(relu(self.grow(self.norm(tokens))))


def group_sizes(points: int, singles: int) -> list[int]:
    """How many of the points are drawn at a time: one by one up to `singles`, then as many as are known already."""
    sizes = [1] * min(points, singles)
    while sum(sizes) < points:
        sizes.append(min(sum(sizes), points - sum(sizes)))
    return sizes


class AutoregressiveModel(nn.Module):
    """Gives the trajectories of the queried points as a product of Gaussian mixtures.

    Raises:
        ShapeError: for sizes that do not fit together; see `MotionPieces`.
        ValueError: when `singles`, `components` or `least_sigma` is not positive.
    """

    def __init__(self, config: AutoregressiveConfig | None = None) -> None:
        super().__init__()
        config = config or AutoregressiveConfig()
        self.config = config
        if min(config.singles, config.components, config.least_sigma) <= 0:
            raise ValueError("singles, components and least_sigma must be positive.")
        cells, width = config.frame_size // 4, config.width
        self.conditions = ConditionEncoder(width, config.image_width, cells, cells)
        self.pieces = MotionPieces(config.num_frames, config.piece, config.basis_size)
        numbers, where = 2 * config.basis_size, position_features(torch.zeros(1, 2)).shape[-1]
        self.place = nn.Linear(width + where, width)
        self.when = nn.Parameter(torch.randn(self.pieces.count, width) * 0.02)
        # A query knows the piece of its own point before, a known token its own piece; both where that piece ended.
        self.query_in, self.known_in = nn.Linear(numbers + 2, width), nn.Linear(numbers + 2, width)
        self.near = DistanceBias(config.heads)
        self.blocks = nn.ModuleList(CausalBlock(width, config.heads) for _ in range(config.depth))
        self.head = MixtureHead(width, config.components, config.least_sigma / self.pieces.unit)

    def prepare(self, frame: Tensor, pokes: Tensor, mask: Tensor, points: Tensor) -> Scene:
        """What is known before a point has moved."""
        size = self.config.frame_size
        check_shape("frame", frame, f"B 3 {size} {size}")
        conditions = self.conditions(frame, pokes, mask)
        rows = self.conditions.rows
        seen = sample_map(rearrange(conditions.cells, "b (r w) d -> b d r w", r=rows), points.clamp(-1, 1))
        place = self.place(torch.cat([seen, position_features(points)], dim=-1))
        contexts = [tensor for block in self.blocks for tensor in block.context(conditions.tokens)]
        return Scene(place, points, contexts, rearrange(conditions.mask, "b m -> b 1 1 m"))

    def mixtures(self, numbers: Tensor, scene: Scene) -> Mixture:
        """The mixture (B, N, S) of every piece given the true ones before it, in one pass; numbers (B, N, S, V)."""
        points, pieces = numbers.shape[1:3]
        before = torch.cat([torch.zeros_like(numbers[:, :, :1]), numbers[:, :, :-1]], dim=2)
        groups = group_sizes(points, self.config.singles)
        group = torch.arange(len(groups)).repeat_interleave(torch.tensor(groups, dtype=torch.long))
        rank = rearrange(torch.arange(pieces) * len(groups) + group[:, None], "n s -> (n s)").to(numbers.device)

        ends = self._ends(numbers)
        starts = torch.cat([torch.zeros_like(ends[:, :, :1]), ends[:, :, :-1]], dim=2)
        place = scene.place[:, :, None] + self.when
        tokens = torch.stack([self._known(place, numbers, ends), self._query(place, before, starts)], dim=1)
        tokens = rearrange(tokens, "b two n s d -> b (two n s) d")
        where = repeat(scene.starts, "b n c -> b (two n s) c", two=2, s=pieces)
        tokens = self._through(tokens, self._bias(rank, rank, where), scene)
        return self.head(rearrange(tokens[:, len(rank) :], "b (n s) d -> b n s d", s=pieces))

    def log_likelihood(self, tracks: Tensor, frame: Tensor, pokes: Tensor, mask: Tensor) -> Tensor:
        """Log density (B, N, S) in nats of every piece of (B, N, T, 2) tracks, given those before it in order."""
        check_shape("tracks", tracks, f"B N {self.config.num_frames} 2", B=len(frame))
        check_finite("tracks", tracks)
        numbers = self.pieces.encode(tracks)
        return self.mixtures(numbers, self.prepare(frame, pokes, mask, tracks[:, :, 0])).log_prob(numbers)

    def loss(self, tracks: Tensor, frame: Tensor, pokes: Tensor, mask: Tensor, generator=None) -> dict[str, Tensor]:
        """Negative log-likelihood a number, points in random order; tracks (B, N, T, 2), poked ones among them."""
        check_shape("tracks", tracks, f"B N {self.config.num_frames} 2", B=len(frame))
        device = tracks.device
        mask = mask & (torch.rand(len(tracks), generator=generator, device=device) >= self.config.drop)[:, None]
        order = torch.rand(tracks.shape[:2], generator=generator, device=device).argsort(dim=1)
        tracks = torch.take_along_dim(tracks, order[:, :, None, None], dim=1)
        nats = -self.log_likelihood(tracks, frame, pokes, mask).mean() / (2 * self.config.basis_size)
        return {"loss": nats, "nats": nats}

    @torch.no_grad()
    def sample(
        self, frame: Tensor, pokes: Tensor, mask: Tensor, query_points: Tensor, *, samples: int = 8, seed: int = 0
    ) -> Tensor:
        """Draws K futures of the queried points: (B, K, Q, T, 2); arguments and errors as of the direct baseline.

        `seed` also decides the order in which points are drawn, one order a clip.
        """
        if samples < 1:
            raise ValueError(f"samples must be at least 1; got {samples}.")
        check_pokes(pokes, mask, len(frame), self.config.max_pokes)
        sizes = check_shape("query_points", query_points, "B Q 2", B=len(frame))
        check_finite("query_points", query_points)
        generator = torch.Generator(frame.device).manual_seed(seed)
        order = torch.rand(len(frame), sizes["Q"], generator=generator, device=frame.device).argsort(dim=1)
        points = torch.take_along_dim(query_points, order[..., None], dim=1)
        scene = self.prepare(frame, pokes, mask, points).repeat(samples)
        numbers = self.one_by_one(lambda mixture, group, piece: mixture.draw(generator), scene)
        displacement = rearrange(self.pieces.decode(numbers), "(b k) q t c -> b k q t c", k=samples)
        displacement = torch.take_along_dim(displacement, order.argsort(dim=1)[:, None, :, None, None], dim=2)
        return repeat(query_points, "b q c -> b k q 1 c", k=samples) + displacement

    @torch.no_grad()
    def one_by_one(self, draw: Callable[[Mixture, slice, int], Tensor], scene: Scene) -> Tensor:
        """Goes through pieces and groups of points, asks for each group's numbers and remembers them as keys and values.

        Args:
            draw: called as ``draw(mixture (B, n), points, piece) -> (B, n, V)``, `points` a slice of the points' order.
            scene: from `prepare`.

        Returns:
            All numbers, (B, N, S, V).
        """
        (batch, points), pieces, heads = scene.starts.shape[:2], self.pieces.count, self.config.heads
        numbers = scene.place.new_zeros(batch, points, pieces, len(self.pieces.unit))
        end = torch.zeros_like(scene.starts)  # where every point is by now, as a displacement
        shape = (batch, heads, points * pieces, self.config.width // heads)
        memory = Memory(len(self.blocks), shape, scene.place)
        groups = torch.arange(points).split(group_sizes(points, self.config.singles))
        new, new_starts = scene.place[:, :0], scene.starts[:, :0]  # the group before, known but not yet in memory
        for piece in range(pieces):
            for group in (slice(int(rows[0]), int(rows[-1]) + 1) for rows in groups):
                place, starts = scene.place[:, group] + self.when[piece], scene.starts[:, group]
                before = numbers[:, group, piece - 1] if piece else torch.zeros_like(numbers[:, group, 0])
                tokens = torch.cat([new, self._query(place, before, end[:, group])], dim=1)
                # Ranks within this pass: the group before is 0, this one 1; memory lies before both.
                ranks = [torch.full((x.shape[1],), i, device=x.device) for i, x in enumerate((new, place))]
                bias = self._bias(*ranks, torch.cat([new_starts, starts], dim=1), memory)
                tokens = self._through(tokens, bias, scene, memory)
                memory.keep(new_starts)
                drawn = draw(self.head(tokens[:, new.shape[1] :]), group, piece)
                numbers[:, group, piece] = drawn
                end[:, group] += self.pieces.steps(numbers[:, group])[:, :, piece] / SCALE
                new, new_starts = self._known(place, drawn, end[:, group]), starts
        return numbers

    def _ends(self, numbers: Tensor) -> Tensor:
        """Displacement (B, N, S, 2) at the end of every piece, in units of a typical one."""
        return self.pieces.steps(numbers).cumsum(dim=2) / SCALE

    def _query(self, place: Tensor, before: Tensor, start: Tensor) -> Tensor:
        return place + self.query_in(torch.cat([before, start], dim=-1))

    def _known(self, place: Tensor, numbers: Tensor, end: Tensor) -> Tensor:
        return place + self.known_in(torch.cat([numbers, end], dim=-1))

    def _bias(self, known: Tensor, query: Tensor, starts: Tensor, memory: Memory | None = None) -> Tensor:
        """Logits to add, (B, heads, L, memory + L), for known tokens and then queries, of these ranks and starts.

        Far points matter less. A query sees itself and what is known of lower rank; a known token what is known of lower or
        its own rank.
        """
        rank = torch.cat([known, query])
        is_known = torch.arange(len(rank), device=rank.device) < len(known)
        seen = (rank < rank[:, None]) | ((rank == rank[:, None]) & is_known[:, None])
        seen = (seen & is_known) | torch.eye(len(rank), dtype=torch.bool, device=rank.device)
        if memory is None:
            return self.near(starts, starts).masked_fill(~seen, -torch.inf)
        seen = nn.functional.pad(seen, (memory.filled, 0), value=True)
        bias = self.near(starts, torch.cat([memory.starts[:, : memory.filled], starts], dim=1))
        return bias.masked_fill(~seen, -torch.inf)

    def _through(self, tokens: Tensor, bias: Tensor, scene: Scene, memory: Memory | None = None) -> Tensor:
        for i, block in enumerate(self.blocks):
            remember = (lambda k, v: (k, v)) if memory is None else (lambda k, v, i=i: memory.with_new(i, k, v))
            tokens = block(tokens, bias, scene.contexts[2 * i : 2 * i + 2], scene.keep, remember)
        return tokens


@dataclass(frozen=True)
class AutoregressiveForecast:
    """The autoregressive baseline as a forecaster; it reads no text and ignores it."""

    model: AutoregressiveModel

    @torch.no_grad()
    def __call__(
        self,
        frame: Tensor,
        pokes: Tensor,
        mask: Tensor,
        query_points: Tensor,
        *,
        num_frames: int = 64,
        samples: int = 8,
        seed: int = 0,
        text: Text | None = None,
    ) -> Tensor:
        """(B, K, Q, T, 2)."""
        return resample_time(self.model.sample(frame, pokes, mask, query_points, samples=samples, seed=seed), num_frames)
