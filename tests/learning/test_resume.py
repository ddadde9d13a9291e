"""Interrupted trainings: resumed exactly, stopped when asked, and never at the cost of the state on disk."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import CONFIG, Net, curve, draw, files, loss, new_net, same_weights, stop_at

from kinelib.learning import state
from kinelib.learning.fit import FitConfig, NotFiniteError, fit
from kinelib.learning.schedule import learning_rate_factor
from kinelib.learning.state import ResumeError

# Resuming


@pytest.mark.parametrize("stop", [1, 7, 8, 19])
def test_a_resumed_run_equals_an_uninterrupted_one_exactly(tmp_path, stop):
    validate = lambda model: {"norm": model.outward.weight.norm()}
    options = {"validate": validate, "validate_every": 6}
    whole, first, second = new_net(), new_net(), Net()
    expected = fit(whole, draw, loss, CONFIG, tmp_path / "whole", **options)
    part = fit(first, stop_at(stop), loss, CONFIG, tmp_path / "parts", **options)
    assert part.stopped_early and part.steps == stop
    result = fit(second, draw, loss, CONFIG, tmp_path / "parts", resume=True, **options)
    assert not result.stopped_early and result.steps == 20
    assert curve(result) == curve(expected)
    assert [(v["step"], v["norm"]) for v in result.validations] == [(v["step"], v["norm"]) for v in expected.validations]
    assert same_weights(second, whole)
    assert part.seconds < result.seconds


def test_resuming_drops_log_lines_newer_than_the_state(tmp_path):
    expected = fit(new_net(), draw, loss, CONFIG, tmp_path / "whole")
    fit(new_net(), stop_at(8), loss, CONFIG, tmp_path / "parts")
    with open(tmp_path / "parts" / "log.jsonl", "a") as log:
        log.write('{"step": 12, "loss": 99.0}\n{"step": 16, "lo')
    result = fit(new_net(), draw, loss, CONFIG, tmp_path / "parts", resume=True)
    assert curve(result) == curve(expected)
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.losses


def test_resuming_a_finished_run_returns_it_and_resuming_nothing_starts(tmp_path):
    first, again = new_net(), Net()
    done = fit(first, draw, loss, CONFIG, tmp_path, resume=True, validate=lambda model: {"one": 1.0})
    before = files(tmp_path)
    result = fit(again, draw, loss, CONFIG, tmp_path, resume=True, validate=lambda model: {"one": 1.0})
    assert (result.losses, result.validations, result.steps) == (done.losses, done.validations, 20)
    assert same_weights(first, again) and files(tmp_path) == before


def test_a_time_budget_goes_on_with_what_is_left(tmp_path):
    def slow_loss(model, batch, generator):
        time.sleep(0.25)
        return loss(model, batch, generator)

    config = FitConfig(seconds=1.5, log_every=1)
    part = fit(new_net(), stop_at(3), slow_loss, config, tmp_path)
    assert part.stopped_early and part.seconds >= 0.75
    result = fit(new_net(), draw, loss, config, tmp_path, resume=True)
    assert not result.stopped_early and result.steps > 4 and result.seconds >= 1.5
    # The second half of the budget follows the second half of the schedule.
    rates = [entry["learning_rate"] for entry in result.losses[3:]]
    assert rates == sorted(rates, reverse=True) and rates[0] <= 1e-3 * learning_rate_factor(0.5, 0.04, 0.0)


def test_a_folder_in_use_is_refused_unless_told_what_to_do(tmp_path):
    fit(new_net(), stop_at(3), loss, CONFIG, tmp_path)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="step 3.*resume=True.*overwrite=True"):
        fit(new_net(), draw, loss, CONFIG, tmp_path)
    assert files(tmp_path) == before
    result = fit(new_net(), draw, loss, CONFIG, tmp_path, overwrite=True)
    assert result.losses[0]["step"] == 1 and list(files(tmp_path)) == ["state.json", "step_20.safetensors"]


def test_another_config_is_refused_by_name(tmp_path):
    fit(new_net(), stop_at(3), loss, CONFIG, tmp_path)
    with pytest.raises(ResumeError, match=r"step 3.*learning_rate was 0\.01, is 0\.02; .*ema_decay was 0\.9, is None"):
        fit(new_net(), draw, loss, replace(CONFIG, learning_rate=0.02, ema_decay=None), tmp_path, resume=True)
    fit(new_net(), draw, loss, replace(CONFIG, save_every_seconds=1), tmp_path, resume=True)


def test_another_network_is_refused_by_name(tmp_path):
    fit(new_net(), stop_at(3), loss, CONFIG, tmp_path)
    with pytest.raises(ResumeError, match=r"gain has shape \(16,\), the network wants \(8,\)"):
        fit(new_net(8), draw, loss, CONFIG, tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["state.json", "step_3.safetensors"])
def test_a_damaged_state_is_refused_by_file(tmp_path, damage):
    fit(new_net(), stop_at(3), loss, CONFIG, tmp_path)
    path = tmp_path / "state" / damage
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ResumeError, match=damage):
        fit(new_net(), draw, loss, CONFIG, tmp_path, resume=True)


# Stopping and failing


def test_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    fit(new_net(), stop_at(2), loss, CONFIG, tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_interrupt_does_not_wait_for_the_step(tmp_path):
    def draw_interrupted_twice(generator):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return draw(generator)

    with pytest.raises(KeyboardInterrupt):
        fit(new_net(), draw_interrupted_twice, loss, CONFIG, tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_stops_the_run_names_the_step_and_keeps_the_older_state(tmp_path, bad):
    fit(new_net(), stop_at(9), loss, CONFIG, tmp_path)
    before = files(tmp_path)
    steps = 9

    def bad_at_step_eleven(model, batch, generator):
        nonlocal steps
        steps += 1
        terms = loss(model, batch, generator)
        return {**terms, "loss": terms["loss"] * (bad if steps == 11 else 1)}

    with pytest.raises(NotFiniteError, match=r"Step 11 of Net: loss and gradient_norm.*state of step 9"):
        fit(new_net(), draw, bad_at_step_eleven, CONFIG, tmp_path, resume=True)
    assert files(tmp_path) == before


def test_a_bad_gradient_under_a_good_loss_is_found_before_it_is_saved(tmp_path):
    root = lambda model, batch, generator: {"loss": (0 * model.gain.sum()).sqrt() + 0 * model.predict(batch["x"]).sum()}
    config = replace(CONFIG, log_every=1000, save_every_seconds=0)
    with pytest.raises(NotFiniteError, match=r"Step 1 of Net: gradient_norm .*No state"):
        fit(new_net(), draw, root, config, tmp_path)
    assert not state.exists(tmp_path)


def test_a_full_disk_keeps_the_previous_state(tmp_path):
    fit(new_net(), stop_at(3), loss, CONFIG, tmp_path)
    before = files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file of this process may grow beyond a kilobyte: writing the tensors fails as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OSError, match="state of step 7 .*state of step 3 is kept"):
            fit(new_net(), stop_at(4), loss, CONFIG, tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == before
    assert fit(new_net(), draw, loss, CONFIG, tmp_path, resume=True).steps == 20


@pytest.mark.parametrize("renames", [0, 1])
def test_a_save_cut_off_at_either_rename_keeps_the_previous_state(tmp_path, monkeypatch, renames):
    expected = fit(new_net(), draw, loss, CONFIG, tmp_path / "whole")
    fit(new_net(), stop_at(3), loss, CONFIG, tmp_path / "parts")
    replace_file, done = os.replace, 0

    def cut(source, target):
        nonlocal done
        if "state" in Path(source).parts:
            if done == renames:
                raise KeyboardInterrupt
            done += 1
        replace_file(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", cut)
        fit(new_net(), stop_at(4), loss, CONFIG, tmp_path / "parts", resume=True)
    assert state.read(tmp_path / "parts").step == 3
    assert curve(fit(new_net(), draw, loss, CONFIG, tmp_path / "parts", resume=True)) == curve(expected)


# Other processes

SCRIPT = """
import sys
sys.path[:0] = [{tests!r}, {repository!r}]
import torch
import small_training
from kinelib.learning.fit import FitConfig, fit
"""


def start(tmp_path, body, *launcher):
    script, here = tmp_path / "script.py", Path(__file__).parent
    script.write_text(SCRIPT.format(tests=str(here), repository=str(here.parents[1])) + body)
    command = [sys.executable, *launcher, str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes)


def test_sigterm_saves_and_stops_another_process(tmp_path):
    body = """
result = fit(small_training.new_net(), small_training.draw, small_training.loss, FitConfig(steps=10**7, log_every=1), "run")
print(result.stopped_early, result.steps)
"""
    process = start(tmp_path, body)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline and not (log.is_file() and log.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    stopped, steps = out.split()
    assert stopped == "True" and int(steps) >= 1
    assert state.read(tmp_path / "run").step == int(steps)
    assert json.loads(log.read_text().splitlines()[-1])["step"] == int(steps)


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["steps=12", "seconds=1.5"])
def test_two_processes_see_different_data_and_end_with_the_same_weights(tmp_path, budget):
    body = f"""
import os
seen = []
def draw(generator):
    batch = small_training.draw(generator)
    seen.append(batch["x"])
    return batch
net = small_training.new_net()
config = FitConfig({budget}, accumulate=2, log_every=4, learning_rate=1e-2)
result = fit(net, draw, small_training.loss, config, "run")
rank = os.environ["RANK"]
torch.save({{"seen": torch.stack(seen), "weights": net.state_dict(), "losses": result.losses}}, f"rank{{rank}}.pt")
"""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start(tmp_path, body, *launcher)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err.count("2 process(es) x batch 32 x accumulation 2") == 1
    a, b = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert a["seen"].shape == b["seen"].shape and len(a["seen"]) >= 4
    assert len({x.sum().item() for x in torch.cat([a["seen"], b["seen"]])}) == 2 * len(a["seen"])
    assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])
    assert not torch.equal(a["weights"]["outward.weight"], new_net().outward.weight)
    assert [entry["loss"] for entry in a["losses"]] == [entry["loss"] for entry in b["losses"]]
    if budget == "steps=12":
        # The schedule is that of one process: nothing was stepped twice.
        rate = 1e-2 * learning_rate_factor(11.5 / 12, 0.04, 0.0)
        assert a["losses"][-1]["learning_rate"] == pytest.approx(rate)
        with pytest.raises(ResumeError, match="num_processes was 2, is 1"):
            config = FitConfig(steps=12, accumulate=2, log_every=4, learning_rate=1e-2)
            fit(new_net(), draw, loss, config, tmp_path / "run", resume=True)


def test_a_checkpoint_is_replaced_only_when_asked_or_while_its_training_goes_on(tmp_path):
    checkpoint, training = tmp_path / "net", tmp_path / "net-training"
    state.check_free(checkpoint, training, resume=False, overwrite=False)
    checkpoint.mkdir()
    state.check_free(checkpoint, training, resume=False, overwrite=True)
    for resume in (False, True):  # there is no training to go on with
        with pytest.raises(FileExistsError, match="overwrite=True"):
            state.check_free(checkpoint, training, resume=resume, overwrite=False)
    fit(new_net(), stop_at(7), loss, CONFIG, training)
    state.check_free(checkpoint, training, resume=True, overwrite=False)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        state.check_free(checkpoint, training, resume=False, overwrite=False)
