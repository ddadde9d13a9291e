"""A plain transcription of the release's LIBERO planner and policy head, in its own axis order, as an oracle for tests.

Like `transcription`, whose pieces it uses: no classes, no caches; the start-step token with and without the release's fault.
"""

import math

import torch
from transcription import embedded, feed_forward, linear, normed, positions, random_state, rotated, times

VIEWS = 2


def random_policy(*, grid, start_step, channels=8, text=64, width=64, planner=128, depth=2, seed=0):
    """A random official state dict of a policy: its head, and planner and autoencoder under `track_predictor.`."""
    rng = torch.Generator().manual_seed(seed + 100)
    inside = random_state(
        width=planner, heads=planner // 64, cross=text, channels=channels, grid=(1, *grid), feature_grid=grid, time_width=32,
        depth=depth, seed=seed,
    )  # fmt: skip
    inside = {name: tensor for name, tensor in inside.items() if name.startswith("vae.") or "cross_attn.pos_emb" not in name}
    head = {}

    def put(state, name, *shape, scale=None, offset=0.0):
        scale = shape[-1] ** -0.5 if scale is None else scale
        state[name] = offset + scale * torch.randn(shape, generator=rng)

    def layers(state, prefix, dim, cross, axes):
        for index in range(depth):
            for kind in ("self", "cross")[: 1 + cross]:
                name = f"{prefix}{index}.{kind}_attn"
                put(state, name + ".norm.scale", dim, scale=0.1, offset=1)
                put(state, name + ".scale", 1, scale=0.5, offset=4)
                put(state, name + ".out_proj.weight", dim, dim)
                put(state, name + ".pos_emb.freqs", axes, 1, 16 if axes == 1 else 8, scale=5)
            put(state, f"{prefix}{index}.self_attn.qkv_proj.weight", 3 * dim, dim)
            if cross:
                put(state, f"{prefix}{index}.cross_attn.q_proj.weight", dim, dim)
                put(state, f"{prefix}{index}.cross_attn.kv_proj.weight", 2 * dim, dim)
                put(state, f"{prefix}{index}.cross_attn.norm_cross.scale", dim, scale=0.1, offset=1)
            put(state, f"{prefix}{index}.ff.norm.scale", dim, scale=0.1, offset=1)
            put(state, f"{prefix}{index}.ff.up_proj.weight", 6 * dim, dim)
            put(state, f"{prefix}{index}.ff.down_proj.weight", dim, 3 * dim)

    layers(inside, "text_encoder.", text, False, 1)
    put(inside, "ca_mask_token", text, scale=1)
    put(inside, "learnable_emb_dino", VIEWS, text, scale=1)
    put(inside, "learnable_emb_grid_tokens", VIEWS, planner, scale=1)
    if start_step:
        put(inside, "start_t_mapping.coeffs", text // 2, scale=3)
        for part in ("0", "1"):
            for name in ("norm.scale", "up_proj.weight", "down_proj.weight"):
                inside[f"start_t_mapping.mlp.{part}.{name}"] = inside[f"track_cond_emb.mlp.{part}.{name}"].flip(0)
    layers(head, "policy_net.", width, True, 2)
    put(head, "learnable_modality_emb", 6, width, scale=1)
    put(head, "learned_action_queries", 1, 16, width, scale=1)
    put(head, "policy_in_proj.proj.weight", width, width)
    put(head, "policy_out_proj.proj.weight", 7, width)
    for name, inputs in (("track_embedder", channels), ("proprio_embedder", 9)):
        put(head, name + ".weight", width, inputs)
        put(head, name + ".bias", width, scale=0.5)
    return head | {"track_predictor." + name: tensor for name, tensor in inside.items()}


def turned(w, name, x, where):
    """Rotates (B, L, heads, d) at positions (B, L, A), where this attention does."""
    if name + ".pos_emb.t_freqs" in w:
        return rotated(w, name, x, where)
    if name + ".pos_emb.freqs" not in w:
        return x
    freqs = w[name + ".pos_emb.freqs"]
    angles = torch.cat([where[:, :, None, axis, None] * freqs[axis] for axis in range(len(freqs))], -1)
    count = angles.shape[-1]
    a, b, rest = x.split([count, count, x.shape[-1] - 2 * count], -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin(), rest], -1)


def attention(w, name, q, k, v, q_where, k_where):
    scale = w[name + ".scale"]
    q, k, v = (x.unflatten(-1, (len(scale), -1)) for x in (q, k, v))
    q, k = (x * scale.sqrt()[:, None] / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    logits = torch.einsum("bqhd,bkhd->bhqk", turned(w, name, q, q_where), turned(w, name, k, k_where))
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2) @ w[name + ".out_proj.weight"].T


def layers(w, prefix, x, where, context=None, context_where=None, condition=None):
    depth = 1 + max(int(name[len(prefix) :].split(".")[0]) for name in w if name.startswith(prefix))
    for index in range(depth):
        name = f"{prefix}{index}.self_attn"
        q, k, v = (normed(w, name + ".norm", x, condition) @ w[name + ".qkv_proj.weight"].T).chunk(3, -1)
        x = x + attention(w, name, q, k, v, where, where)
        if context is not None:
            name = f"{prefix}{index}.cross_attn"
            q = normed(w, name + ".norm", x, condition) @ w[name + ".q_proj.weight"].T
            k, v = (normed(w, name + ".norm_cross", context) @ w[name + ".kv_proj.weight"].T).chunk(2, -1)
            x = x + attention(w, name, q, k, v, where, context_where)
        x = feed_forward(w, f"{prefix}{index}.ff", x, condition)
    return x


def step_token(w, step, truncated):
    w = dict(w)
    if truncated:
        w["start_t_mapping.coeffs"] = w["start_t_mapping.coeffs"].long().float()
    return embedded(w, "start_t_mapping", step.float()[:, None, None], w["ca_mask_token"].shape[-1])


def velocity(policy, noisy, time, image_features, text, step=None, truncated=False, masked=False, lost=False):
    """`noisy` (B, views * cells, C), `image_features` (B * views, rows, columns, F), `text` (B, M, D), `step` (B,).

    `masked` replaces the text by the mask token, and the step too where it is `lost`.
    """
    w = {name.removeprefix("track_predictor."): tensor for name, tensor in policy.items()}
    condition = 2 * math.pi * time[:, None] @ w["time_emb.weight"].T
    condition = linear(w, "time_in_proj", torch.cat([condition.cos(), condition.sin()], -1))
    condition = normed(w, "mapping.in_norm", condition)
    for block in range(2):
        condition = feed_forward(w, f"mapping.blocks.{block}", condition)
    condition = normed(w, "mapping.out_norm", condition)

    batch, words = text.shape[:2]
    index = torch.arange(words).float()[None, :, None].expand(batch, -1, -1)
    context = w["ca_mask_token"].expand(batch, words, -1) if masked else layers(w, "text_encoder.", text, index)
    if step is not None and not (masked and lost):
        context = torch.cat([context, step_token(w, step, truncated)], 1)
    rows, columns = image_features.shape[1:3]
    image = image_features.flatten(1, 2).unflatten(0, (batch, VIEWS)) + w["learnable_emb_dino"][:, None]
    latents = linear(w, "in_proj.proj", noisy).unflatten(1, (VIEWS, -1)) + w["learnable_emb_grid_tokens"][:, None]
    x = torch.cat([latents.flatten(1, 2), linear(w, "in_proj.cond_proj", image).flatten(1, 2)], 1)
    grids = [positions(torch.tensor([when]), rows, columns) for when in (0.0, 0.0, -1.0, -1.0)]
    x = layers(w, "backbone.", x, torch.cat(grids).expand(batch, -1, -1), context, None, condition)
    return linear(w, "out_proj.proj", x[:, : noisy.shape[1]])


def sample(policy, noise, image_features, text, step, truncated, steps, cfg_scale, lost=False):
    x = noise
    for count in range(steps, 0, -1):
        at = (torch.full((len(noise),), count / steps), image_features, text, step, truncated)
        v = velocity(policy, x, *at)
        if cfg_scale > 1:
            free = velocity(policy, x, *at, masked=True, lost=lost)
            v = free + cfg_scale * (v - free)
        x = x - v / steps
    return x


def actions(w, latents, proprio, grid):
    cells = torch.cartesian_prod(times(grid[0]), times(grid[1]))
    kinds, batch = w["learnable_modality_emb"], len(latents)
    seen = linear(w, "track_embedder", latents).unflatten(1, (VIEWS, -1)) + kinds[2:4, None]
    felt = linear(w, "proprio_embedder", proprio) + kinds[5]
    context = torch.cat([seen.flatten(1, 2), felt[:, None]], 1)
    where = torch.cat([cells, cells, torch.zeros(1, 2)]).expand(batch, -1, -1)
    queries = linear(w, "policy_in_proj.proj", w["learned_action_queries"].expand(batch, -1, -1))
    own = torch.zeros(batch, queries.shape[1], 2)
    x = layers(w, "policy_net.", queries, own, context, where)
    return linear(w, "policy_out_proj.proj", x)
