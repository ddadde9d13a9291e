"""Officially released weights for robots: the LIBERO planner (both variants) and the policy head.

What the release stores and never uses is left behind by name: the embedder of the planner's dummy pokes, and three of
the policy's six modality vectors.

Shapes: as in `kinelib.zipmo.libero_planner` and `kinelib.robots.policy_head`.
"""

from __future__ import annotations

from torch import Tensor

from kinelib.official.layout import Renames, converted, depth
from kinelib.official.reading import fill, take_prefixed
from kinelib.robots.policy_head import PolicyHead, PolicyHeadConfig
from kinelib.zipmo.libero_planner import LiberoPlanner, LiberoPlannerConfig
from kinelib.zipmo.transformer_autoencoder import TransformerCodecConfig

_PLANNER_RENAMES: Renames = (
    (r"\bbackbone\.", "transformer.layers."),
    (r"\btext_encoder\.", "text_encoder.layers."),
    (r"\bca_mask_token$", "text_mask"),
    (r"\blearnable_emb_dino$", "image_views"),
    (r"\blearnable_emb_grid_tokens$", "latent_views"),
    (r"\bin_proj\.cond_proj\.", "image_in."),
    (r"\bin_proj\.proj\.", "latents_in."),
    (r"\bout_proj\.proj\.", "velocity_out."),
)
_POLICY_RENAMES: Renames = (
    (r"\bpolicy_net\.", "transformer.layers."),
    (r"\blearned_action_queries$", "queries"),
    (r"\bpolicy_in_proj\.proj\.", "queries_in."),
    (r"\bpolicy_out_proj\.proj\.", "actions_out."),
    (r"\btrack_embedder\.", "latents_in."),
    (r"\bproprio_embedder\.", "proprio_in."),
)
_FIRST_VIEW, _PROPRIO = 2, 5  # rows of the modality vectors in use


def is_libero_planner(state: dict[str, Tensor]) -> bool:
    """Whether the tensors beside an autoencoder are those of a LIBERO planner."""
    return any(name.startswith("text_encoder.") for name in state)


def carries_policy(state: dict[str, Tensor]) -> bool:
    """Whether a state dict is a policy with its planner and autoencoder inside."""
    return any(name.startswith("track_predictor.") for name in state)


def load_libero_planner(
    state: dict[str, Tensor],
    codec: TransformerCodecConfig,
    *,
    latent_shift: float,
    latent_variance: float,
    truncate_step_frequencies: bool = False,
) -> LiberoPlanner:
    """Builds a LIBERO planner from its official tensors.

    Args:
        state: the planner's tensors, without its autoencoder's.
        codec: sizes of its autoencoder.
        latent_shift, latent_variance: statistics of the autoencoder's latents.
        truncate_step_frequencies: keep the fault of the start-step token.

    Raises:
        ValueError: when a tensor is missing, unexpected or misshaped; by name.
    """
    state = dict(state)
    take_prefixed(state, "track_cond_emb.")  # the embedder of pokes that are thrown away
    step = next((name.removesuffix(".coeffs") for name in state if name.endswith(".coeffs")), None)
    expected = (
        "in_proj.proj.weight",
        "in_proj.cond_proj.weight",
        "learnable_emb_dino",
        "time_in_proj.weight",
        "ca_mask_token",
    )
    missing = [name for name in expected if name not in state]
    if missing:
        raise ValueError(f"the official LIBERO planner does not fit: missing {', '.join(missing)}.")
    width, channels = state["in_proj.proj.weight"].shape
    views, feature_width = state["learnable_emb_dino"].shape
    config = LiberoPlannerConfig(
        views=views,
        width=width,
        depth=depth(state, "backbone."),
        heads=len(state["backbone.0.self_attn.scale"]),
        grid=codec.grid,
        slots=codec.slots,
        channels=channels,
        feature_width=feature_width,
        feature_grid=codec.feature_grid,
        text_width=state["ca_mask_token"].shape[-1],
        text_depth=depth(state, "text_encoder."),
        text_heads=len(state["text_encoder.0.self_attn.scale"]),
        time_width=len(state["time_in_proj.weight"]),
        start_step=step is not None,
        truncate_step_frequencies=truncate_step_frequencies,
        latent_shift=latent_shift,
        latent_variance=latent_variance,
    )
    renames, inputs = _PLANNER_RENAMES, {}
    if step is not None:
        renames, inputs = (*_PLANNER_RENAMES, (rf"^{step}\.", "embed_step.")), {step: (0,)}
    planner = LiberoPlanner(config)
    fill(planner, converted(state, renames, inputs), "LIBERO planner")
    return planner


def load_policy_head(state: dict[str, Tensor], codec: TransformerCodecConfig, views: int = 2) -> PolicyHead:
    """Builds a policy head from its official tensors.

    Args:
        state: the head's tensors, without its planner's.
        codec: sizes of the autoencoder whose latents it reads.
        views: of the planner.

    Raises:
        ValueError: when a tensor is missing, unexpected or misshaped; by name.
    """
    state = dict(state)
    expected = ("learnable_modality_emb", "learned_action_queries", "policy_out_proj.proj.weight", "proprio_embedder.weight",
                "track_embedder.weight", "policy_net.0.self_attn.scale")  # fmt: skip
    missing = [name for name in expected if name not in state]
    if missing:
        raise ValueError(f"the official policy head does not fit: missing {', '.join(missing)}.")
    modalities = state.pop("learnable_modality_emb")
    queries = state["learned_action_queries"] = state["learned_action_queries"].flatten(0, -2)
    width, channels = state["track_embedder.weight"].shape
    config = PolicyHeadConfig(
        views=views,
        grid=codec.grid,
        channels=channels,
        proprio=state["proprio_embedder.weight"].shape[1],
        horizon=len(queries),
        actions=len(state["policy_out_proj.proj.weight"]),
        width=width,
        depth=depth(state, "policy_net."),
        heads=len(state["policy_net.0.self_attn.scale"]),
    )
    head = PolicyHead(config)
    vectors = {
        "view_vectors": modalities[_FIRST_VIEW : _FIRST_VIEW + views],
        "proprio_vector": modalities[_PROPRIO],
    }
    fill(head, converted(state, _POLICY_RENAMES) | vectors, "policy head")
    return head
