"""Which optimizer `fit` uses, and on which parameters weight decay acts. Matrices decay; gains, biases and other 1-d
parameters do not: shrinking them regularises nothing, and a norm's gain has no reason to prefer 0.
"""

from __future__ import annotations

import torch
from torch import nn

from kinelib.learning.adam_atan2 import AdamAtan2

OPTIMIZERS = ("adamw", "adam-atan2")


def build_optimizer(
    name: str, parameters: list[nn.Parameter], *, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    """An optimizer over the parameters.

    Args:
        name: one of `OPTIMIZERS`.
        parameters: what is trained.
        learning_rate, betas: as torch's AdamW takes them.
        weight_decay: on parameters of two or more dimensions only.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"there is no optimizer {name!r}; choose one of: {', '.join(OPTIMIZERS)}.")
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "adam-atan2":
        return AdamAtan2(groups, lr=learning_rate, betas=betas)
    # One kernel for all parameters where torch has one; its default is a Python loop on the CPU.
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=fused)
