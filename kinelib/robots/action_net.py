"""`ActionNet`: a chunk of actions from a plan, or from a look at the pictures, or from both.

The release's policy reads the planner's latents and proprioception and nothing else (`policy_head`). A planner that learnt
from a few hundred recordings on two cores foresees motion to within a few pixels, which says where a hand is going but not
to a centimetre where a handle is. So there can be a *glance* instead: where things of each colour are (`colour_glance`), and
a perceptron that also knows the sentence. A plan reaches it undecoded, as the largest principal components of its latents:
all eight thousand numbers would be learnt by heart from two hundred demonstrations. Three networks:

    reads       from                                                 what it is
    latents     undecoded latents, proprioception                    the paper's head
    glance      pictures, sentence, proprioception                   behaviour cloning, the baseline
    components  the same, and the components of the plan             the policy that is shipped

The shipped policy is also told where what will be moved is and where it ends (`affordance`), which was learnt from tracks.

Departures: 2 x 2 latent cells are one token of the head; plans are left out of a share of a batch (`plan_drop`) in training,
so that a policy can act without one; and the discounted error is absolute, not squared: experts move at full speed or not at
all, and the mean of the two is a crawl.

Shapes: frames (B, V, 3, S, S) in [-1, 1], words (B, 384) one vector a sentence, proprio (B, P), chunks (B, H, A),
seen (B, F) what a glance at the frames gives, found (B, V * 6) what the affordance finds in them, plan (B, V, 1, R, W, C)
normalised latents or (B, Q) components.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from kinelib.notation import check_finite, check_shape
from kinelib.robots.affordance import Affordance, AffordanceConfig
from kinelib.robots.colour_glance import ColourGlance, noisy
from kinelib.robots.perceptron import SentencePerceptron
from kinelib.robots.policy_head import PolicyHead, PolicyHeadConfig
from kinelib.robots.robot_planner import RobotPlanner
from kinelib.robots.worlds import check_known

READS = ("latents", "glance", "components")


@dataclass(frozen=True)
class ActionNetConfig:
    """Sizes of an action network; A, P, H and V stand in `head`."""

    head: PolicyHeadConfig = field(
        default_factory=lambda: PolicyHeadConfig(grid=(8, 8), channels=64, proprio=4, horizon=16, actions=4)
    )  # the paper's part; its sizes of actions and proprioception hold for all three networks
    merge: int = 2  # latent cells a side that the head reads as one; its grid and channels are those after merging
    views: tuple[str, ...] = ("front", "top")  # V cameras, in order
    reads: str = "components"  # which of READS
    frame_size: int = 128  # S
    colours: int = 48  # K that a glance tells apart
    components: int = 64  # Q of a plan that are read, the largest
    affordance: AffordanceConfig | None = None  # of what finds things to be moved; None = they are not looked for
    width: int = 256  # of the perceptron
    heed: int = 32  # numbers a sentence is brought down to
    noise: float = 0.1  # on what is seen in training, in standard deviations
    felt_noise: float = 0.05  # on what is felt, planned and found, likewise
    dropout: float = 0.1  # in the perceptron
    plan_drop: float = 0.1  # share of training examples without a plan, for a network that looks as well

    @property
    def plans(self) -> bool:
        """Whether the network reads plans."""
        return self.reads != "glance"

    @property
    def looks(self) -> bool:
        """Whether the network reads pictures and sentences."""
        return self.reads != "latents"


class ActionNet(nn.Module):
    """Answers a moment with a chunk of actions.

    Args:
        config: sizes, and what is read.

    Raises:
        WorldError: for an unknown `reads`.
    """

    def __init__(self, config: ActionNetConfig) -> None:
        super().__init__()
        check_known("reads", config.reads, READS)
        self.config = config
        head = config.head
        # Measured on training data; identity until then.
        self.register_buffer("proprio_shift", torch.zeros(head.proprio))
        self.register_buffer("proprio_scale", torch.ones(head.proprio))
        if not config.looks:
            self.head = PolicyHead(head)
            return
        self.glance = ColourGlance(len(config.views), config.frame_size, config.colours)
        inputs = self.glance.features + head.proprio
        if config.plans:
            self.register_buffer("plan_scale", torch.ones(config.components))
            inputs += config.components
        self.affordance = None
        if config.affordance is not None:
            self.affordance = Affordance(config.affordance).requires_grad_(False)
            self.register_buffer("found_shift", torch.zeros(config.affordance.features))
            self.register_buffer("found_scale", torch.ones(config.affordance.features))
            inputs += config.affordance.features
        self.perceptron = SentencePerceptron(inputs, config.width, config.heed, config.dropout)
        self.answer = nn.Linear(config.width, head.horizon * head.actions)

    @torch.no_grad()
    def measure_statistics(self, proprio: Tensor, plans: Tensor | None = None, found: Tensor | None = None) -> None:
        """Sets shift and scale of proprioception from (M, P) and of what is found from (M, V * 6), and the scale of plans
        from (W, Q)."""
        self.proprio_shift.copy_(proprio.mean(0))
        self.proprio_scale.copy_(proprio.std(0).clamp_min(1e-3))
        if found is not None:
            self.found_shift.copy_(found.mean(0))
            self.found_scale.copy_(found.std(0).clamp_min(1e-2))
        if plans is not None:
            self.plan_scale.copy_(plans.square().mean(0).sqrt().clamp_min(1e-2))

    def read(self, latents: Tensor, planner: RobotPlanner) -> Tensor:
        """Plans as this network reads them: the latents (B, V, 1, R, W, C) themselves, or their components (B, Q).

        Raises:
            ValueError: when it reads components, and the planner was trained without the guess that knows them.
        """
        return planner.components(latents)[:, : self.config.components] if self.config.looks else latents

    def forward(
        self,
        proprio: Tensor,
        *,
        plan: Tensor | None = None,
        frames: Tensor | None = None,
        words: Tensor | None = None,
        seen: Tensor | None = None,
        found: Tensor | None = None,
    ) -> Tensor:
        """The chunk (B, H, A).

        Args:
            proprio: (B, P) as the world gives it.
            plan: as :meth:`read` gives it, for a network that reads plans; one that looks as well acts without.
            frames, words: (B, V, 3, S, S) and (B, 384), for a network that glances.
            seen, found: (B, F) what `glance(frames)` gave and (B, V * 6) what `affordance.find(frames, words)` did, instead
                of frames.

        Raises:
            ShapeError: on wrong shapes or values that are not finite. ValueError: when what the network needs is missing.
        """
        return self._answer(proprio, plan, frames, words, seen, found)

    def loss(
        self,
        proprio: Tensor,
        chunks: Tensor,
        valid: Tensor,
        *,
        plan: Tensor | None = None,
        frames: Tensor | None = None,
        words: Tensor | None = None,
        seen: Tensor | None = None,
        found: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The discounted absolute error of the predicted chunk; plans are dropped here.

        Args:
            proprio, plan, frames, words, seen, found: as of :meth:`forward`.
            chunks, valid: (B, H, A) and (B, H), as of :func:`policy_head.chunk_loss`.
            generator: decides whose plans are dropped, and draws noise.

        Returns:
            "loss", and "error", the same without discount.
        """
        if plan is not None and self.config.looks:
            kept = torch.rand(len(proprio), 1, generator=generator, device=proprio.device) >= self.config.plan_drop
            plan = plan * kept
        predicted = self._answer(proprio, plan, frames, words, seen, found, generator, noise=True)
        discount = self.config.head.discount ** torch.arange(chunks.shape[1], device=chunks.device)
        difference = ((predicted - chunks).abs() * valid[:, :, None]).sum((0, 2)) / (valid.sum() * chunks.shape[2])
        return {"loss": (difference * discount).sum(), "error": difference.sum().detach()}

    def _answer(self, proprio, plan, frames, words, seen, found, generator=None, noise: bool = False) -> Tensor:
        config = self.config
        batch = check_shape("proprio", proprio, f"B {config.head.proprio}")["B"]
        check_finite("proprio", proprio)
        felt = (proprio - self.proprio_shift) / self.proprio_scale
        if not config.looks:
            if plan is None:
                raise ValueError("this network reads plans and nothing else; give it one.")
            merged = rearrange(plan, "b v s (r p) (w q) c -> b v s r w (p q c)", p=config.merge, q=config.merge)
            return self.head(merged, felt)
        if (frames is None and seen is None) or words is None:
            raise ValueError("this network looks at pictures and reads a sentence; give it frames and words.")
        if seen is None:
            size = config.frame_size
            check_shape("frames", frames, f"B {len(config.views)} 3 {size} {size}", B=batch)
            seen = self.glance(frames)
        inputs = [seen, felt]
        if self.affordance is not None:
            if found is None and frames is None:
                raise ValueError("this network looks for what will be moved; give it frames, or what was found in them.")
            found = self.affordance.find(frames, words) if found is None else found
            check_shape("found", found, f"B {config.affordance.features}", B=batch)
            inputs.append((found - self.found_shift) / self.found_scale)
        if config.plans and plan is None:
            inputs.append(seen.new_zeros(batch, config.components))
        elif config.plans:
            check_shape("plan", plan, f"B {config.components}", B=batch)
            check_finite("plan", plan)
            inputs.append(plan / self.plan_scale)
        if noise:
            amounts = (config.noise, *[config.felt_noise] * (len(inputs) - 1))
            inputs = [noisy(one, amount, generator) for one, amount in zip(inputs, amounts, strict=True)]
        hidden = self.perceptron(torch.cat(inputs, dim=-1), words)
        return rearrange(self.answer(hidden), "b (h a) -> b h a", h=config.head.horizon)
