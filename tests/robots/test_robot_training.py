"""From demonstrations to rollouts: every stage runs, resumes, refuses what is wrong, and leaves a checkpoint that acts."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from einops import rearrange

from kinelib.learning import checkpoints
from kinelib.notation import ShapeError
from kinelib.robots.affordance import Affordance, AffordanceConfig
from kinelib.robots.batches import moments_evenly
from kinelib.robots.demonstration_shards import DemonstrationError
from kinelib.robots.demonstrations import DemonstrationConfig
from kinelib.robots.evaluate import Row, acting, evaluate_robots, tables
from kinelib.robots.motion_guess import MotionGuess, MotionGuessConfig
from kinelib.robots.other_plans import ExpertPlans, RandomPlans
from kinelib.robots.robot_planner import RobotPlanner, RobotPlannerConfig
from kinelib.robots.rollouts import RolloutError
from kinelib.robots.suites import Suite
from kinelib.robots.train import demonstrate_stage, train_stage
from kinelib.robots.worlds import WorldError, observe
from kinelib.zipmo.flow_matcher import FlowMatcherConfig

VIEWS = ("above", "beside")
TINY = FlowMatcherConfig(
    latent_shape=(1, 4, 4, 4), frame_size=16, patch=2, width=20, image_width=8, depth=1, heads=2, text_width=384,
    drop=0.0, text_drop=0.1, poke_weight=0.0,
)  # fmt: skip


def suite_of(world) -> Suite:
    demos = DemonstrationConfig(per_shard=2, views=VIEWS, every=4, side=96, detail=64, points=64, hold=2, limit=40)
    told = lambda task, seed=None: f"move the square to the {task}"
    return Suite(world, ("left", "right"), told, demos, told, (("left", "right"),), limit=40)


def planner() -> RobotPlanner:
    torch.manual_seed(0)
    return RobotPlanner(RobotPlannerConfig(VIEWS, 4, 16, TINY)).eval()


def words(batch: int):
    from kinelib.learning.text import Text

    return Text(torch.randn(batch, 3, 384, generator=torch.Generator().manual_seed(3)), torch.ones(batch, 3).bool())


def test_a_plan_has_a_grid_for_every_view_and_the_seed_decides():
    model = planner()
    frames = torch.rand(3, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plan = model.plan(frames, words(3), steps=3, seed=5)
    assert plan.shape == (3, 2, 1, 4, 4, 4)
    assert torch.equal(plan, model.plan(frames, words(3), steps=3, seed=5))
    assert not torch.equal(plan, model.plan(frames, words(3), steps=3, seed=6))


def test_statistics_make_latents_of_unit_variance_and_leave_the_autoencoder_as_it_was():
    from kinelib.zipmo.autoencoder import AutoencoderConfig, TrackAutoencoder

    small = AutoencoderConfig(
        num_frames=8, temporal_compression=8, grid=(4, 4), frame_size=16, channels=4, width=16, basis_size=8
    )
    autoencoder, model = TrackAutoencoder(small), planner()
    latents = 0.01 * torch.randn(64, 2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.3
    model.measure_statistics(latents, autoencoder)
    normal = model.normalize(latents)
    assert normal.var().item() == pytest.approx(1, rel=0.1)
    assert torch.allclose(model.denormalize(normal), latents, atol=1e-6)
    assert torch.equal(autoencoder.latent_scale, torch.ones(4))


def test_a_planner_learns_what_a_picture_shows():
    """Motion to the side on which a picture is bright: a few steps of training tell the two apart."""
    model = planner().train()
    optimizer, draw = torch.optim.Adam(model.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for _ in range(40):
        side = torch.randint(0, 2, (8,), generator=draw)
        frames = torch.full((8, 2, 3, 16, 16), -1.0)
        frames[side == 0, ..., :8] = 1.0
        frames[side == 1, ..., 8:] = 1.0
        latents = (2.0 * side - 1)[:, None, None, None, None, None].expand(8, 2, 1, 4, 4, 4)
        loss = model.loss(latents, frames, words(8), draw)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    plans = model.eval().plan(frames, words(8), steps=5)
    right = (plans.mean(dim=(1, 2, 3, 4, 5)) > 0) == (side == 1)
    assert right.all()


def scenes(count: int = 256):
    """A red square's height decides how far things move: pictures (count, 2, 16, 16, 3) and heights in [-1, 1]."""
    height = torch.randint(0, 13, (count,), generator=torch.Generator().manual_seed(0))
    pictures = torch.zeros(count, 2, 16, 16, 3, dtype=torch.uint8)
    for row, top in enumerate(height.tolist()):
        pictures[row, :, top : top + 3, 6:9, 0] = 255
    return pictures, height / 6 - 1


def trained_guess(pictures, latents) -> MotionGuess:
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    model = MotionGuess(MotionGuessConfig(VIEWS, (1, 4, 4, 4), 16, colours=3, components=2, width=32))
    seen, wanted = model.glance.measure(pictures, draw), model.measure(latents)
    optimizer, said = torch.optim.Adam(model.parameters(), 3e-3), words(len(seen)).pooled()
    for _ in range(150):
        loss = model.loss(seen, said, wanted, draw)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def test_a_guess_is_learnt_from_where_colours_are_and_a_planner_starts_there():
    pictures, height = scenes()
    pattern = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    latents = 3 + height[:, None, None, None, None, None] * pattern
    model = trained_guess(pictures, latents)
    frames = rearrange(pictures, "b v h w c -> b v c h w").float() / 127.5 - 1
    guessed = model(model.glance(frames), words(256).pooled())
    error = (guessed - latents).square().mean() / (latents - latents.mean(0)).square().mean()
    assert error < 0.05, "knowing nothing is 1"
    torch.manual_seed(0)
    whole = RobotPlanner(RobotPlannerConfig(VIEWS, 4, 16, TINY, model.config)).eval()
    whole.first.load_state_dict(model.state_dict())
    for tensor in whole.flow.parameters():
        torch.nn.init.zeros_(tensor)  # a flow matcher that adds nothing
    plan = whole.plan(frames[:8], words(8), steps=4)
    assert torch.allclose(plan, guessed[:8], atol=1e-4)


def test_components_need_enough_latents():
    model = MotionGuess(MotionGuessConfig(VIEWS, (1, 4, 4, 4), 16, components=8))
    with pytest.raises(ShapeError, match="8 or more latents"):
        model.measure(torch.zeros(7, 2, 1, 4, 4, 4))
    with pytest.raises(ShapeError, match="8 or more latents"):
        model.measure(torch.zeros(9, 2, 1, 4, 4, 3))


def test_random_plans_are_of_the_planners_shape_and_change():
    plans = RandomPlans(planner())
    first, second = plans(None, None), plans(None, None)
    assert first.shape == (1, 2, 1, 4, 4, 4)
    assert not torch.equal(first, second)


def test_the_experts_future_is_told_and_the_world_put_back(toy):
    seen = {}

    class Recorder:
        """Stands where the autoencoder is: keeps what it is asked to encode."""

        config = SimpleNamespace(frame_size=16)

        def encode(self, tracks, frames, keep):
            seen["tracks"] = tracks
            return SimpleNamespace(mean=torch.zeros(len(tracks), 1, 4, 4, 4))

    world, model = toy("left"), planner()
    plans = ExpertPlans(model, Recorder())
    with pytest.raises(WorldError, match="watch"):
        plans(None, None)
    plans.watch(world).reset(0)
    before = world.state()
    latents = plans(observe(world), torch.zeros(1, 2, 3, 16, 16))
    assert latents.shape == (1, 2, 1, 4, 4, 4)
    assert world.state().step == before.step
    assert (world.state().physics == before.physics).all()
    assert seen["tracks"].shape[2] == 16 // 4 + 1
    moved = seen["tracks"][0, :, -1] - seen["tracks"][0, :, 0]
    assert moved[:, 0].min() < -0.1, "the square goes left"
    assert moved[:, 0].max() < 0.01


def test_tables_put_ways_side_by_side():
    rows = [
        Row("success", "policy", "reach", 80.0, 60.0, 92.0, 20, "%"),
        Row("success", "cloning", "reach", 50.0, 30.0, 70.0, 20, "%"),
        Row("planning", "10 steps, 2 views", "all", 80.0, 70.0, 90.0, 20, "ms", 100.0),
    ]
    text = tables(rows)
    assert "| reach | 80 [60, 92], 20 | 50 [30, 70], 20 |" in text
    assert "| planning | 10 steps, 2 views | all | 80 [70, 90], 20 ms | 100 |" in text


def test_what_is_unknown_or_missing_is_named(tmp_path, toy):
    with pytest.raises(WorldError, match="did you mean policy"):
        train_stage("policies", out=tmp_path)
    with pytest.raises(WorldError, match="metaworld"):
        evaluate_robots("metaworlds")
    with pytest.raises(FileNotFoundError, match="robots demos"):
        train_stage("cloning", "smoke", tmp_path, steps=1)
    with pytest.raises(FileNotFoundError, match="holds no cloning"):
        evaluate_robots(suite_of(toy), checkpoint=tmp_path, ways=["cloning"], profile_name="smoke")
    with pytest.raises(WorldError, match="there is no task 'up'"):
        evaluate_robots(suite_of(toy), checkpoint=tmp_path, tasks=["up"])


@pytest.mark.slow
def test_every_stage_from_demonstrations_to_a_table(tmp_path, toy):
    suite = suite_of(toy)
    shards = demonstrate_stage("smoke", tmp_path, suite=replace(suite, demos=replace(suite.demos, per_shard=2)), demos=4)
    assert [path.name for path in shards] == ["left-train-000.parquet", "right-train-000.parquet"]
    with pytest.raises(DemonstrationError, match="fewer than 6 train demonstrations of left, right"):
        train_stage("guess", "smoke", tmp_path, steps=2)
    with pytest.raises(FileNotFoundError, match="inverse"):
        train_stage("policy", "smoke", tmp_path, steps=2, labelled=2)
    for stage in ("guess", "planner", "cloning", "inverse", "policy"):
        result = train_stage(stage, "smoke", tmp_path, steps=2, labelled=2)
        assert result.steps == 2
        card = (tmp_path / stage / "card.md").read_text()
        assert ("CC BY-NC" in card) == (stage not in ("cloning", "inverse"))
        assert f"--stage {stage} --profile smoke --steps 2 --seed 0 --labelled 2\n" in card
    with pytest.raises(FileExistsError, match="overwrite"):
        train_stage("cloning", "smoke", tmp_path, steps=2)
    assert train_stage("cloning", "smoke", tmp_path, steps=2, labelled=2, resume=True).steps == 2
    again = dict(steps=2, labelled=2, overwrite=True)
    assert train_stage("policy", "smoke", tmp_path, **again, changes={"reads": "latents"}).steps == 2
    assert checkpoints.read_config(tmp_path / "policy")["arguments"]["reads"] == "latents"
    assert train_stage("policy", "smoke", tmp_path, **again, recordings=False, changes={"noise": 0.3}).steps == 2
    assert "--noise 0.3 --labelled 2 --no-recordings\n" in (tmp_path / "policy" / "card.md").read_text()
    planned = set(tmp_path.glob("plans-*"))
    assert train_stage("inverse", "smoke", tmp_path, **again, seed=1).steps == 2
    assert train_stage("policy", "smoke", tmp_path, **again).steps == 2
    assert planned == set(tmp_path.glob("plans-*")), "plans do not depend on what inverse dynamics say was felt"

    with pytest.raises(DemonstrationError, match="nothing but the arm moves"):
        train_stage("affordance", "smoke", tmp_path, steps=2, labelled=2)
    # As if it had been learnt elsewhere: it becomes part of the policy, and the policy acts with it.
    checkpoints.save(tmp_path / "affordance", Affordance(AffordanceConfig(VIEWS, 96, 4)), card="", overwrite=True)
    assert train_stage("policy", "smoke", tmp_path, **again).steps == 2
    assert checkpoints.read_config(tmp_path / "policy")["arguments"]["affordance"]["width"] == 4

    json_path = tmp_path / "robots.json"
    ask = dict(json_path=json_path, checkpoint=tmp_path, profile_name="smoke", episodes=1)
    table = evaluate_robots(suite, **ask)
    found = json.loads(json_path.read_text())
    assert {row["what"] for row in found["rows"] if row["table"] == "success"} == {
        "policy", "cloning", "open loop", "random latents", "oracle tracks", "expert",
    }  # fmt: skip
    assert "own sentence" in table
    made = toy.made
    evaluate_robots(suite, **ask, ways=["policy", "expert"])
    assert toy.made == made, "every episode is in a ledger: no world is made again"
    assert [acting(way, tmp_path, replace(suite, replan=2))[0].replan for way in ("policy", "cloning")] == [2, 2]
    with pytest.raises(RolloutError, match="a look every 2 actions"):
        evaluate_robots(replace(suite, replan=2), **ask, ways=["cloning"])
    assert checkpoints.read_config(tmp_path / "planner")["class"] == "RobotPlanner"


def test_half_of_a_policys_batch_has_known_actions_and_tasks_are_as_likely():
    class Moments:
        """As much of a set as is looked at: 40 moments with actions, then 400 without."""

        tasks = ("left",) * 30 + ("right",) * 10 + ("left",) * 100 + ("right",) * 300
        __len__ = lambda self: len(self.tasks)

    moments = Moments()
    draw = torch.Generator().manual_seed(0)
    rows = torch.cat([moments_evenly(moments, 64, 40)(draw) for _ in range(50)])
    assert ((rows < 40).reshape(50, 64).sum(1) == 32).all()
    right = torch.tensor([moments.tasks[row] == "right" for row in rows.tolist()])
    assert 0.45 < right.float().mean() < 0.55
    alone = moments_evenly(moments, 64)(draw)
    assert alone.min() >= 0
    assert (alone >= 40).float().mean() > 0.6, "without a bound the many recordings have their share"
