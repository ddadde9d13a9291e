"""What the small flow models know: the first frame, the pokes and a sentence, as tokens and as a field over the grid.

Departures from the paper, measured in the course: image tokens are added to the latent tokens of the same place
instead of joining the sequence; a poke is a cross-attention token (as in the paper) and is also spread over the cells that
look like it, so that adherence is not left to attention alone; absent pokes are masked and one learned null token is always
there (the paper pads with zero tokens that act as attention sinks). A sentence is one cross-attention token a word piece
(the paper: one pooled vector, for robots only), and its mean is added to the flow time's embedding. Both are also read
whitened (`finely`): "to the left" and "to the right" are nearly the same numbers to MiniLM.

Shapes: frame (B, 3, S, S); pokes (B, P, 5) with mask (B, P); text tokens (B, L, t) with mask (B, L); cells (B, R * W, d);
tokens (B, 1 + P + L, d).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from kinelib.learning.text import Text
from kinelib.learning.whitening import Whitening
from kinelib.notation import ShapeError, cell_centres, check_finite, check_shape
from kinelib.zipmo.point_features import position_features, sample_map
from kinelib.zipmo.pokes import blank_empty_slots

RAW = 6  # numbers of a poke that are spread as they are: displacement, mean velocity, goal time, one
FLOOR = 1.0  # of whitening: little of what no caption says is blown up
REACH = 6.0  # initial sharpness of a poke's field: weight falls by e at a distance of about 0.4


class Conditions(NamedTuple):
    """What a frame and its pokes amount to.

    cells (B, R * W, d) to add to the latents, moves (B, R * W, h * 6) the pokes' own numbers spread over the cells, tokens
    (B, M, d) to attend to, mask (B, M), True = there; summary (B, d) of the sentence, 0 without one.
    """

    cells: Tensor
    moves: Tensor
    tokens: Tensor
    mask: Tensor
    summary: Tensor


def check_pokes(pokes: Tensor, mask: Tensor, batch: int, most: int | None = None) -> None:
    """Raises ShapeError for pokes misshaped, not finite, outside the frame or too many; empty slots may hold anything."""
    sizes = check_shape("pokes", pokes, "B P 5", B=batch)
    check_shape("poke mask", mask, "B P", B=batch, P=sizes["P"])
    if mask.dtype != torch.bool:
        raise ShapeError(f"the poke mask must be bool, True for a real poke; got {mask.dtype}.")
    real = pokes[mask]
    check_finite("pokes", real)
    if real.numel() and real[:, :2].abs().max() > 1:
        raise ShapeError("a poke starts outside the frame: its first two numbers, x and y, must be in [-1, 1].")
    if real.numel() and not ((real[:, 4] > 0) & (real[:, 4] <= 1)).all():
        raise ShapeError("a poke's goal time must be in (0, 1], 1 being the last frame.")
    if most is not None and mask.numel() and int(mask.sum(1).max()) > most:
        raise ShapeError(f"{int(mask.sum(1).max())} pokes were given and this model was trained with at most {most}.")


def check_text(text: Text, batch: int, sentence: SentenceTokens | None) -> None:
    """Raises ShapeError for a sentence that is misshaped or not finite, or given to a model that reads none."""
    if sentence is None:
        raise ShapeError(
            "this model was built without text (text_width = 0); leave the text out, or load one that reads it."
        )
    sizes = check_shape("text tokens", text.tokens, f"B L {sentence.mix[0].normalized_shape[0]}", B=batch)
    check_shape("text mask", text.mask, "B L", B=batch, L=sizes["L"])
    check_finite("text tokens", text.tokens)


class SentenceTokens(nn.Module):
    """Word-piece embeddings to tokens of the model's width, and a summary of the sentence that starts silent.

    Args:
        text_width: channels of the word pieces.
        width: d of the tokens.
        finely: whether word pieces and their mean are also read whitened.
    """

    def __init__(self, text_width: int, width: int, finely: bool = False) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width), nn.ReLU(), nn.Linear(width, width))
        self.summary = nn.Linear(width, width, bias=False)
        self.finely = finely
        silent = [self.summary]
        if finely:
            self.white_pieces, self.white_mean = Whitening(text_width), Whitening(text_width)
            self.fine_pieces = nn.Linear(text_width, width, bias=False)
            self.fine_mean = nn.Sequential(nn.Linear(text_width, width), nn.ReLU(), nn.Linear(width, width, bias=False))
            silent += [self.fine_pieces, self.fine_mean[-1]]
        for layer in silent:
            nn.init.zeros_(layer.weight)

    def measure(self, sentences: Text) -> None:
        """Takes the statistics of whitening from different training sentences; nothing where nothing is whitened."""
        if self.finely:
            self.white_pieces.measure(sentences.tokens[sentences.mask], FLOOR)
            self.white_mean.measure(sentences.pooled(), FLOOR)

    def forward(self, text: Text) -> tuple[Tensor, Tensor]:
        """(B, L, d) tokens and the (B, d) summary; empty sentences have summary 0."""
        tokens = self.mix(text.tokens)
        if self.finely:
            tokens = tokens + self.fine_pieces(self.white_pieces.directions(text.tokens))
        there = text.mask[..., None].to(tokens)
        mean = (tokens * there).sum(dim=1) / there.sum(dim=1).clamp_min(1)
        summary = self.summary(mean)
        if self.finely:
            summary = summary + self.fine_mean(self.white_mean.directions(text.pooled())) * text.mask.any(
                dim=1, keepdim=True
            )
        return tokens, summary


class FrameEncoder(nn.Module):
    """First-frame features of the cells: 4 x 4 patches, then residual 3 x 3 convolutions; rows = columns = S / 4."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 6, stride=4, padding=1)
        self.near = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.halve = nn.Conv2d(width, width, 2, stride=2)
        self.far = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))

    def forward(self, frame: Tensor) -> Tensor:
        grid = self.patches(frame.contiguous(memory_format=torch.channels_last))
        for layer in self.near:
            grid = grid + torch.relu(layer(grid))
        wide = self.halve(grid)
        for layer in self.far:
            wide = wide + torch.relu(layer(wide))
        return grid + nn.functional.interpolate(wide, scale_factor=2, mode="nearest")


class ConditionEncoder(nn.Module):
    """Turns a frame, pokes and a sentence into `Conditions`.

    Args:
        width: d of tokens and cells.
        image_width: channels of the image features.
        rows, columns: of the cell grid; the frame is 4 pixels a cell.
        heads: of the poke field.
        text_width: channels of the sentence's tokens; 0 for a model that reads no text.
        finely: whether sentences are also read whitened.
    """

    def __init__(
        self,
        width: int,
        image_width: int,
        rows: int,
        columns: int,
        heads: int = 4,
        text_width: int = 0,
        finely: bool = False,
    ) -> None:
        super().__init__()
        self.rows, self.columns, self.heads = rows, columns, heads
        self.image = FrameEncoder(image_width, depth=2)
        self.register_buffer("cells_xy", cell_centres(rows, columns), persistent=False)
        where = position_features(torch.zeros(1, 2)).shape[-1]
        self.cell = nn.Linear(image_width + where, width)
        self.poke = nn.Sequential(nn.Linear(image_width + 3 * where + 3, width), nn.ReLU(), nn.Linear(width, width))
        self.null = nn.Parameter(torch.randn(width) * 0.02)
        self.query, self.key = nn.Linear(width, 16 * heads), nn.Linear(width, 16 * heads)
        self.null_logit = nn.Parameter(torch.zeros(heads))
        self.reach = nn.Parameter(torch.full((heads,), REACH).log())
        self.field = nn.Linear(heads * RAW + heads * (width // heads), width)
        self.value = nn.Linear(width, width)
        self.sentence = SentenceTokens(text_width, width, finely) if text_width else None

    def forward(self, frame: Tensor, pokes: Tensor, mask: Tensor, text: Text | None = None) -> Conditions:
        """Raises ShapeError when pokes or text are malformed, or there is text and the model reads none."""
        check_pokes(pokes, mask, len(frame))
        pokes = blank_empty_slots(pokes, mask)
        image = self.image(frame)
        cells_xy = self.cells_xy.expand(len(frame), -1, -1)
        seen = rearrange(image, "b c r w -> b (r w) c")
        cells = self.cell(torch.cat([seen, position_features(cells_xy)], dim=-1))

        start, goal, time = pokes[..., :2], pokes[..., 2:4], pokes[..., 4:]
        move = goal - start
        about = [sample_map(image, start), position_features(start), position_features(goal), position_features(2 * move)]
        tokens = self.poke(torch.cat([*about, time, move / time.clamp_min(0.05) / 4], dim=-1))
        moves, spread = self._spread(cells, cells_xy, tokens, start, move, time, mask)
        cells = cells + spread

        null = self.null.expand(len(frame), 1, -1)
        tokens = torch.cat([null, tokens], dim=1)
        mask = nn.functional.pad(mask, (1, 0), value=True)
        summary = torch.zeros_like(tokens[:, 0])
        if text is not None:
            check_text(text, len(frame), self.sentence)
            said, summary = self.sentence(text)
            tokens, mask = torch.cat([tokens, said], dim=1), torch.cat([mask, text.mask], dim=1)
        return Conditions(cells, moves, tokens, mask, summary)

    def _spread(
        self, cells: Tensor, cells_xy: Tensor, tokens: Tensor, start: Tensor, move: Tensor, time: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Every cell takes from the pokes that are near and whose surroundings look like it, or from none (the null key)."""
        heads = dict(h=self.heads)
        q = rearrange(self.query(cells), "b m (h c) -> b h m c", **heads)
        k = rearrange(self.key(tokens), "b p (h c) -> b h p c", **heads)
        squared = (cells_xy[:, :, None] - start[:, None]).square().sum(-1)
        logits = q @ k.mT / 4 - self.reach.exp()[:, None, None] * squared[:, None]
        logits = logits.masked_fill(~mask[:, None, None, :], -torch.inf)
        null = self.null_logit[:, None, None].expand(len(cells), -1, cells.shape[1], 1)
        weights = torch.cat([null, logits], dim=-1).softmax(dim=-1)[..., 1:]
        raw = torch.cat([move, move / time.clamp_min(0.2), time, torch.ones_like(time)], dim=-1)
        moves = weights @ raw[:, None].expand(-1, self.heads, -1, -1)
        moves = rearrange(moves, "b h m c -> b m (h c)")
        values = weights @ rearrange(self.value(tokens), "b p (h c) -> b h p c", h=self.heads)
        return moves, self.field(torch.cat([moves, rearrange(values, "b h m c -> b m (h c)")], dim=-1))
