"""Adam-atan2: Adam whose division is replaced by an angle, so that it needs no epsilon and its steps are bounded.

Everett et al. (2024), "Scaling Exponents Across Parameterizations and Optimizers", Section 4.3; Kimodo trains with it
(Section 5.1 of its paper). Adam divides the mean m of the gradients by the root of their mean square v. Here

    step = learning_rate * 4/pi * scale * atan2(m, scale * sqrt(v))

which for |m| << scale * sqrt(v) is 4/pi times Adam's step, and for an all-zero gradient is 0 without an epsilon. Since
only the ratio of m to sqrt(v) counts, gradients multiplied by any constant give the same training exactly; clipping their
norm therefore changes a step only through its effect on the averages. Neither paper says which scale Kimodo used: 8 is ours,
where the bend of the angle is mild (m/sqrt(v) = 1 gives 4/pi * 0.995).

Weight decay is decoupled, as AdamW's: weights shrink by learning_rate * weight_decay a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class AdamAtan2(torch.optim.Optimizer):
    """The optimizer; a drop-in for `torch.optim.AdamW` without its epsilon.

    Args:
        parameters: tensors, or groups of them as dictionaries with the key "params".
        lr: learning rate, above 0.
        betas: decays of the gradients' mean and mean square, in [0, 1).
        weight_decay: decoupled, at least 0.
        scale: lambda of the formula, above 0; the larger, the closer to 4/pi times Adam.

    Raises:
        ValueError: for a number out of range, by name.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        scale: float = 8.0,
    ) -> None:
        checks = {
            "lr": (lr, 0 < lr < math.inf),
            "betas": (betas, len(betas) == 2 and all(0 <= beta < 1 for beta in betas)),
            "weight_decay": (weight_decay, 0 <= weight_decay < math.inf),
            "scale": (scale, 0 < scale < math.inf),
        }
        for name, (value, fine) in checks.items():
            if not fine:
                raise ValueError(f"AdamAtan2: {name} = {value!r} is out of range; see its description.")
        super().__init__(parameters, dict(lr=lr, betas=betas, weight_decay=weight_decay, scale=scale))

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Updates every parameter that has a gradient; `closure`, where given, works out the loss first.

        Raises:
            ValueError: for a sparse gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            live = [p for p in group["params"] if p.grad is not None]
            if live:
                self._update(live, group)
        return loss

    def _update(self, live: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in live:
            if parameter.grad.is_sparse:
                raise ValueError("AdamAtan2 needs dense gradients; build the embedding with sparse=False.")
            entry = self.state[parameter]
            if not entry:
                entry["step"] = torch.zeros(())  # a tensor, so that a saved state holds nothing else
                entry["mean"] = torch.zeros_like(parameter)
                entry["square"] = torch.zeros_like(parameter)
            entry["step"] += 1
        gradients = [p.grad for p in live]
        means, squares = ([self.state[p][name] for p in live] for name in ("mean", "square"))
        first, second = group["betas"]
        # Fused calls over all tensors: a Python loop of small kernels costs more than a small network's arithmetic.
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        if group["weight_decay"]:
            torch._foreach_mul_(live, 1 - group["lr"] * group["weight_decay"])
        scale = group["scale"]
        roots = torch._foreach_sqrt(squares)
        for parameter, mean, root in zip(live, means, roots, strict=True):
            # Both averages start at 0: dividing by 1 - beta^step undoes that. A parameter may have rested in some steps.
            count = float(self.state[parameter]["step"])
            ratio = (1 - first**count) / math.sqrt(1 - second**count)
            angle = torch.atan2(mean, root.mul_(scale * ratio))
            parameter.add_(angle, alpha=-group["lr"] * 4 / math.pi * scale)
