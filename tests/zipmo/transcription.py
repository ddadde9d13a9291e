"""A plain transcription of the published algorithm in the release's own axis order, (t, y, x), as an oracle for tests.

No classes, no caches, no masks: a state dict under official names goes in with the inputs. Written from the facts, and
itself checked against recorded outputs of the release where the reference folder is there.
"""

import math

import torch
import torch.nn.functional as F


def random_state(*, width, heads, cross, channels, grid, feature_grid, time_width, depth=1, seed=0):
    """A random official state dict of an autoencoder under `vae.` and a planner beside it."""
    rng = torch.Generator().manual_seed(seed)
    state = {}

    def put(name, *shape, scale=None, offset=0.0):
        scale = shape[-1] ** -0.5 if scale is None else scale
        state[name] = offset + scale * torch.randn(shape, generator=rng)

    def norm(name, dim, adaptive):
        if adaptive:
            put(name + ".linear.weight", dim, time_width, scale=0.1)
        else:
            put(name + ".scale", dim, scale=0.1, offset=1)

    def feed_forward(name, dim, adaptive=False):
        norm(name + ".norm", dim, adaptive)
        put(name + ".up_proj.weight", 6 * dim, dim)
        put(name + ".down_proj.weight", dim, 3 * dim)

    def layers(prefix, adaptive):
        for index in range(depth):
            for kind in ("self", "cross"):
                name = f"{prefix}backbone.{index}.{kind}_attn"
                norm(name + ".norm", width, adaptive)
                put(name + ".scale", heads, scale=0.5, offset=4)
                put(name + ".out_proj.weight", width, width)
                put(name + ".pos_emb.t_freqs", heads, 8, scale=5)
                put(name + ".pos_emb.yx_freqs", 2, heads, 8, scale=10)
            put(f"{prefix}backbone.{index}.self_attn.qkv_proj.weight", 3 * width, width)
            put(f"{prefix}backbone.{index}.cross_attn.q_proj.weight", width, width)
            put(f"{prefix}backbone.{index}.cross_attn.kv_proj.weight", 2 * width, cross)
            norm(f"{prefix}backbone.{index}.cross_attn.norm_cross", cross, False)
            feed_forward(f"{prefix}backbone.{index}.ff", width, adaptive)

    def linear(name, outputs, inputs, bias=True):
        put(name + ".weight", outputs, inputs)
        if bias:
            put(name + ".bias", outputs, scale=0.1)

    def embedder(name, inputs, dim):
        put(name + ".coeffs", dim // (2 * inputs), scale=8)
        for block in range(2):
            feed_forward(f"{name}.mlp.{block}", dim)

    for part in ("encoder", "decoder"):
        layers(f"vae.{part}.", False)
        state[f"vae.{part}.pos_cross"] = positions(torch.tensor([-1.0]), *feature_grid)
    encoder, decoder = "vae.encoder.", "vae.decoder."
    for name in (encoder + "query_token", encoder + "reg_token", decoder + "decode_token"):
        put(name, 1, 1, width, scale=1)
    state[encoder + "query_pos"] = positions(times(grid[0]), *grid[1:])[None]
    state[encoder + "reg_pos"] = torch.zeros(1, 1, 3)
    embedder(encoder + "trajs_in", 2, width)
    linear(encoder + "to_mean", channels, width)
    linear(encoder + "to_logvar", channels, width)
    linear(decoder + "latents_in", width, channels)
    state[decoder + "trajs_out.0.scale"] = torch.ones(width)
    for layer, outputs in ((1, width), (3, width), (5, 2)):
        linear(f"{decoder}trajs_out.{layer}", outputs, width)

    layers("", True)
    linear("in_proj.proj", width, channels, bias=False)
    linear("in_proj.cond_proj", width, cross, bias=False)
    linear("out_proj.proj", channels, width, bias=False)
    put("learnable_emb_dino", cross, scale=1)
    embedder("track_cond_emb", 3, cross)
    put("time_emb.weight", time_width // 2, 1, scale=1)
    linear("time_in_proj", time_width, time_width, bias=False)
    for block in range(2):
        feed_forward(f"mapping.blocks.{block}", time_width)
    for name in ("mapping.in_norm", "mapping.out_norm"):
        norm(name, time_width, False)
    return state


def times(count):
    return (2 * torch.arange(count) + 1) / count - 1


def positions(when, rows, columns):
    return torch.cartesian_prod(when, times(rows), times(columns))


def rms(x, scale):
    return x * scale / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def normed(w, name, x, condition=None):
    if name + ".scale" in w:
        return rms(x, w[name + ".scale"])
    return rms(x, 1 + (condition @ w[name + ".linear.weight"].T)[:, None])


def feed_forward(w, name, x, condition=None):
    value, gate = (normed(w, name + ".norm", x, condition) @ w[name + ".up_proj.weight"].T).chunk(2, -1)
    return x + (value * F.silu(gate)) @ w[name + ".down_proj.weight"].T


def rotated(w, name, x, where):
    angles = where[:, :, None, :1] * w[name + ".pos_emb.t_freqs"]
    for axis in range(2):
        angles = torch.cat([angles, where[:, :, None, 1 + axis, None] * w[name + ".pos_emb.yx_freqs"][axis]], -1)
    a, b, rest = x.split([24, 24, x.shape[-1] - 48], -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin(), rest], -1)


def attention(w, name, q, k, v, q_where, k_where):
    scale = w[name + ".scale"]
    q, k, v = (x.unflatten(-1, (len(scale), -1)) for x in (q, k, v))
    q, k = (x * scale.sqrt()[:, None] / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    logits = torch.einsum("bqhd,bkhd->bhqk", rotated(w, name, q, q_where), rotated(w, name, k, k_where))
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2) @ w[name + ".out_proj.weight"].T


def layers(w, prefix, x, where, context, context_where, condition=None):
    depth = 1 + max(int(name.split("backbone.")[1].split(".")[0]) for name in w if name.startswith(prefix + "backbone."))
    where, context_where = (place.expand(len(x), -1, -1) for place in (where, context_where))
    for index in range(depth):
        name = f"{prefix}backbone.{index}.self_attn"
        q, k, v = (normed(w, name + ".norm", x, condition) @ w[name + ".qkv_proj.weight"].T).chunk(3, -1)
        x = x + attention(w, name, q, k, v, where, where)
        name = f"{prefix}backbone.{index}.cross_attn"
        q = normed(w, name + ".norm", x, condition) @ w[name + ".q_proj.weight"].T
        k, v = (normed(w, name + ".norm_cross", context) @ w[name + ".kv_proj.weight"].T).chunk(2, -1)
        x = x + attention(w, name, q, k, v, where, context_where)
        x = feed_forward(w, f"{prefix}backbone.{index}.ff", x, condition)
    return x


def embedded(w, name, x, dim):
    phases = x[..., None] * w[name + ".coeffs"]
    features = torch.cat([phases.sin(), phases.cos()], -1).flatten(-2)
    features = F.pad(features, (0, dim - features.shape[-1]))
    for block in range(2):
        features = feed_forward(w, f"{name}.mlp.{block}", features)
    return features


def linear(w, name, x):
    return x @ w[name + ".weight"].T + w.get(name + ".bias", 0)


def track_places(starts, frames):
    when = times(frames)[None, None, :, None].expand(*starts.shape[:2], -1, 1)
    return torch.cat([when, starts[:, :, None].expand(-1, -1, frames, -1)], -1).flatten(1, 2)


def encode(w, tracks_yx, image_features):
    name, batch = "vae.encoder.", len(tracks_yx)
    cells = w[name + "query_pos"].shape[1]
    tokens = embedded(w, name + "trajs_in", tracks_yx.flatten(1, 2), w[name + "query_token"].shape[-1])
    x = torch.cat([w[name + "query_token"].expand(batch, cells, -1), tokens, w[name + "reg_token"].expand(batch, -1, -1)], 1)
    grid, origin = (w[name + part].expand(batch, -1, -1) for part in ("query_pos", "reg_pos"))
    where = torch.cat([grid, track_places(tracks_yx[:, :, 0], tracks_yx.shape[2]), origin], 1)
    x = layers(w, name, x, where, image_features, w[name + "pos_cross"])[:, :cells]
    return linear(w, name + "to_mean", x), linear(w, name + "to_logvar", x)


def decode(w, latents, image_features, query_yx, frames):
    name, (batch, count, _) = "vae.decoder.", query_yx.shape
    tokens = w[name + "decode_token"].expand(batch, count * frames, -1)
    x = torch.cat([linear(w, name + "latents_in", latents), tokens], 1)
    grid = w["vae.encoder.query_pos"].expand(batch, -1, -1)
    where = torch.cat([grid, track_places(query_yx, frames)], 1)
    x = layers(w, name, x, where, image_features, w[name + "pos_cross"])[:, latents.shape[1] :]
    x = rms(x, w[name + "trajs_out.0.scale"])
    x = F.silu(linear(w, name + "trajs_out.3", F.silu(linear(w, name + "trajs_out.1", x))))
    return linear(w, name + "trajs_out.5", x).unflatten(1, (count, frames))


def velocity(w, noisy, time, image_features, pokes_yx, slots, grid, feature_grid, image_time=0.0):
    """`pokes_yx` (B, P, 5) is padded with zero tokens to `slots`; P = 0 is the unconditional branch.

    `image_time` is when the image tokens are; None puts them where the latents are.
    """
    width = w["learnable_emb_dino"].shape[-1]
    condition = 2 * math.pi * time[:, None] @ w["time_emb.weight"].T
    condition = linear(w, "time_in_proj", torch.cat([condition.cos(), condition.sin()], -1))
    condition = normed(w, "mapping.in_norm", condition)
    for block in range(2):
        condition = feed_forward(w, f"mapping.blocks.{block}", condition)
    condition = normed(w, "mapping.out_norm", condition)
    free = slots - pokes_yx.shape[1]
    context = F.pad(embedded(w, "track_cond_emb", pokes_yx[..., 2:], width), (0, 0, 0, free))
    context_where = F.pad(pokes_yx[..., :2], (1, 0, 0, free))
    image = linear(w, "in_proj.cond_proj", image_features + w["learnable_emb_dino"])
    x = torch.cat([linear(w, "in_proj.proj", noisy), image], 1)
    where = positions(times(grid[0]), *grid[1:])
    where = torch.cat([where, where if image_time is None else positions(torch.tensor([image_time]), *feature_grid)])
    x = layers(w, "", x, where, context, context_where, condition)[:, : noisy.shape[1]]
    return linear(w, "out_proj.proj", x)


def sample(w, noise, image_features, pokes_yx, slots, grid, feature_grid, steps, cfg_scale, image_time=0.0):
    x, batch = noise, len(noise)
    for step in range(steps):
        time = torch.full((batch,), 1 - step / steps)
        at = (image_features, pokes_yx, slots, grid, feature_grid, image_time)
        v = velocity(w, x, time, *at)
        if cfg_scale > 1:
            free = velocity(w, x, time, image_features, pokes_yx[:, :0], *at[2:])
            v = free + cfg_scale * (v - free)
        x = x - v / steps
    return x
