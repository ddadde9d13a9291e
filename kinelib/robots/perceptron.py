"""`SentencePerceptron`: numbers that were seen and felt, and a sentence, to a vector that knows what matters of them.

Three hidden layers; the sentence scales and shifts the first two (feature-wise modulation, Perez et al. 2018), since what a
number means for the task depends on what is asked for. It stands behind the actions of policy and cloning
(`kinelib.robots.action_net`) and behind a planner's first guess (`kinelib.robots.robot_planner`).

Shapes: inputs (B, F) standardised, words (B, 384) one vector of length 1 a sentence, output (B, width).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kinelib.learning.text import WIDTH
from kinelib.notation import check_shape


class SentencePerceptron(nn.Module):
    """See the module docstring.

    Args:
        inputs: F.
        width: of the hidden layers.
        heed: numbers a sentence is brought down to.
        dropout: share of hidden numbers dropped in training.
    """

    def __init__(self, inputs: int, width: int = 256, heed: int = 32, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.second, self.third = nn.Linear(width, width), nn.Linear(width, width)
        self.heed = nn.Sequential(nn.Linear(WIDTH, heed), nn.Linear(heed, 4 * width))
        self.drop = nn.Dropout(dropout)

    def forward(self, inputs: Tensor, words: Tensor) -> Tensor:
        """(B, width); raises ShapeError for misshaped words."""
        check_shape("words", words, f"B {WIDTH}", B=len(inputs))
        # From length 1 to numbers of about 1.
        gain1, shift1, gain2, shift2 = self.heed(words * WIDTH**0.5).chunk(4, dim=-1)
        hidden = torch.relu(self.first(inputs) * (1 + gain1) + shift1)
        hidden = hidden + torch.relu(self.second(self.drop(hidden)) * (1 + gain2) + shift2)
        return hidden + torch.relu(self.third(self.drop(hidden)))
