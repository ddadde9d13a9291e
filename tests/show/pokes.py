"""A forecaster in ten lines for tests of the canvas: points near a poke follow it; samples differ in how far."""

import numpy as np
import torch


def forecast(frame, pokes, mask, points, *, num_frames, samples, seed, steps=6, guidance=1.0):
    """(1, K, Q, T, 2); moves grow linearly in time, sample 0 reaches the goal exactly."""
    move = guidance * (pokes[..., 2:4] - pokes[..., :2]) * mask[..., None]
    near = torch.exp(-(points[:, :, None] - pokes[:, None, :, :2]).square().sum(-1) / 0.1)
    total = torch.einsum("bqp,bpc->bqc", near, move)
    amount = 1 + 0.4 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    amount[0] = 1
    moved = amount[None, :, None, None] * total[:, None]
    return points[:, None, :, None] + moved[:, :, :, None] * torch.linspace(0, 1, num_frames)[:, None]


def picture(height=90, width=120):
    """uint8 (H, W, 3), a gradient with a square in it."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], -1).astype(np.uint8)
    image[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = (230, 180, 60)
    return image
