"""A small training that the tests of fit share: a network with noise from every source, and how to interrupt it."""

import os
import signal

import torch
from torch import nn

from kinelib.learning.fit import FitConfig

CONFIG = FitConfig(steps=20, learning_rate=1e-2, log_every=4, ema_decay=0.9, seed=5)


class Net(nn.Module):
    """Noise from both sources: dropout (torch's own generator) here, jitter from the passed generator in the loss."""

    def __init__(self, width=16):
        super().__init__()
        self.inward, self.gain, self.outward = nn.Linear(3, width), nn.Parameter(torch.ones(width)), nn.Linear(width, 1)
        self.dropout = nn.Dropout(0.2)

    def predict(self, x):
        return self.outward(self.dropout(torch.tanh(self.inward(x)) * self.gain))


def new_net(width=16):
    torch.manual_seed(1)
    return Net(width)


def draw(generator):
    x = torch.randn(32, 3, generator=generator)
    return {"x": x, "y": (x[:, :1] * x[:, 1:2]).sin()}


def loss(model, batch, generator):
    jitter = 0.05 * torch.randn(batch["x"].shape, generator=generator)
    error = (model.predict(batch["x"] + jitter) - batch["y"]).abs()
    return {"loss": error.square().mean(), "worst": error.max()}


def curve(result):
    """The logged lines without what a clock decides."""
    return [{k: v for k, v in entry.items() if k not in ("seconds", "items_per_second")} for entry in result.losses]


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def stop_at(step):
    """A draw during which SIGTERM arrives in the given step, counted from 1 in this call of fit."""
    count = 0

    def counting(generator):
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(generator)

    return counting


def files(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "state").iterdir())}
