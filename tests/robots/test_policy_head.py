"""The policy head: the paper's size, what it reads, its discounted loss, and bad input."""

import pytest
import torch

from kinelib.notation import ShapeError
from kinelib.robots.policy_head import PAPER, PolicyHead, PolicyHeadConfig, chunk_loss

SMALL = PolicyHeadConfig(grid=(2, 3), channels=4, width=64, depth=2, heads=1)


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = PolicyHead(SMALL)
    rng = torch.Generator().manual_seed(0)
    for parameter in head.parameters():  # the zero-initialised ones, without which every test would pass
        if not parameter.any():
            parameter.data = torch.randn(parameter.shape, generator=rng) / parameter.shape[-1] ** 0.5
    return head.eval()


@pytest.fixture
def inputs():
    rng = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, 1, 2, 3, 4, generator=rng), torch.randn(2, 9, generator=rng)


def test_paper_size_has_the_papers_parameter_counts():
    with torch.device("meta"):
        head = PolicyHead(PAPER)
    count = lambda module: sum(parameter.numel() for parameter in module.parameters()) / 1e6
    unused = 3 * 768 / 1e6  # modality vectors that the release stores and never reads
    assert count(head) + unused == pytest.approx(60.82, abs=0.005)
    assert count(head.transformer) == pytest.approx(60.18, abs=0.005)
    assert (PAPER.horizon, PAPER.actions, PAPER.proprio, PAPER.views, PAPER.grid) == (16, 7, 9, 2, (16, 16))


def test_views_places_and_proprioception_all_matter(head, inputs):
    latents, proprio = inputs
    chunk = head(latents, proprio)
    assert chunk.shape == (2, 16, 7)
    assert torch.allclose(head(latents[:1], proprio[:1]), chunk[:1], atol=1e-5)
    for other in (latents.flip(1), latents.flip(3), latents.flip(4)):  # another view, row, column
        assert not torch.allclose(head(other, proprio), chunk, atol=1e-3)
    assert not torch.allclose(head(latents, proprio + 1), chunk, atol=1e-3)
    assert not torch.allclose(chunk[:, 0], chunk[:, 1], atol=1e-3)


def test_loss_discounts_later_steps():
    predicted, actions = torch.zeros(3, 16, 7), torch.ones(3, 16, 7)
    weights = 0.99 ** torch.arange(16)
    assert chunk_loss(predicted, actions)["loss"].item() == pytest.approx(weights.mean().item(), rel=1e-6)
    early, late = torch.zeros(3, 16, 7), torch.zeros(3, 16, 7)
    early[:, 0], late[:, 15] = 1, 1
    ratio = chunk_loss(predicted, late)["loss"] / chunk_loss(predicted, early)["loss"]
    assert ratio.item() == pytest.approx(0.99**15, rel=1e-5)
    assert chunk_loss(predicted, actions, 1.0)["loss"].item() == pytest.approx(1)
    assert chunk_loss(predicted, actions)["error"].item() == pytest.approx(1)


def test_steps_beyond_a_demonstration_do_not_count(head, inputs):
    rng = torch.Generator().manual_seed(2)
    actions, valid = torch.randn(2, 16, 7, generator=rng), torch.ones(2, 16, dtype=torch.bool)
    valid[1, 5:] = False
    actions[1, 5:] = float("nan")
    losses = head.loss(*inputs, actions, valid)
    losses["loss"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    other = torch.where(torch.isnan(actions), 9.0, actions)
    assert torch.equal(head.loss(*inputs, other, valid)["loss"], losses["loss"])


def test_it_learns_to_read_the_latents(inputs):
    torch.manual_seed(0)
    head = PolicyHead(SMALL)
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    latents, proprio = inputs
    actions = torch.randn(2, 16, 7, generator=torch.Generator().manual_seed(3))
    first = head.loss(latents, proprio, actions)["loss"].item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = head.loss(latents, proprio, actions)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first


def test_bad_input_is_refused(head, inputs):
    latents, proprio = inputs
    actions = torch.zeros(2, 16, 7)
    for call, message in (
        (lambda: head(latents[:, :1], proprio), "latents must have shape"),
        (lambda: head(latents, proprio[:, :7]), "proprio must have shape"),
        (lambda: head(latents * float("nan"), proprio), "latents holds"),
        (lambda: head(latents, proprio * float("inf")), "proprio holds"),
        (lambda: head.loss(latents, proprio, actions[:, :8]), "actions must have shape"),
        (lambda: head.loss(latents, proprio, actions * float("nan")), "actions holds"),
        (lambda: head.loss(latents, proprio, actions, torch.ones(2, 3)), "valid must have shape"),
        (lambda: head.loss(latents, proprio, actions, torch.zeros(2, 16)), "no step"),
    ):
        with pytest.raises(ShapeError, match=message):
            call()
    for discount in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="discount"):
            PolicyHead(PolicyHeadConfig(discount=discount))
