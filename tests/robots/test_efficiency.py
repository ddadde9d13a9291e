"""Success against demonstrations, from ledgers: shared episodes, paired differences, files, what is refused."""

import json
from dataclasses import asdict

import pytest

from kinelib import __main__ as cli
from kinelib.robots.efficiency import curve, curve_table, read_curve
from kinelib.robots.rollouts import FORMAT, Episode, RolloutError


def ledger(path, successes):
    """A ledger of ten scenes of one task, of which those in `successes` were done; None is a scene that was not run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    episodes = [Episode("metaworld", "reach", seed, "reach", done, 9, 1.0) for seed, done in enumerate(successes)]
    lines = [{"format": FORMAT, "policy": "p", "limit": 200}, *map(asdict, episodes)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folders(tmp_path):
    ledger(tmp_path / "few" / "policy.jsonl", [True] * 6 + [False] * 4)
    ledger(tmp_path / "few" / "cloning.jsonl", [True] * 2 + [False] * 8)
    ledger(tmp_path / "many" / "policy.jsonl", [True] * 10 + [False] * 5)  # five scenes that cloning did not see
    ledger(tmp_path / "many" / "cloning.jsonl", [True] * 10)
    return {20: tmp_path / "many", 5: tmp_path / "few"}


def test_points_are_rates_over_shared_episodes_and_their_paired_difference(folders, tmp_path):
    points = curve(folders, tmp_path / "curve.json")
    found = {(one.demos, one.what): one for one in points}
    assert [one.demos for one in points] == [5, 5, 5, 20, 20, 20]
    assert found[5, "policy"].value == 60 and found[5, "cloning"].value == 20
    assert found[5, "policy - cloning"].value == pytest.approx(40) and found[5, "policy - cloning"].low > 0
    assert found[20, "policy"].value == 100 and found[20, "policy"].n == 10 and found[20, "policy - cloning"].value == 0
    assert read_curve(tmp_path / "curve.json") == points
    assert "| 5 | 60 [" in curve_table(points)


def test_the_command_prints_the_table(folders, tmp_path, capsys):
    given = [part for demos, folder in folders.items() for part in ("--curve", f"{demos}={folder}")]
    assert cli.main(["evaluate", "robots", *given, "--json", str(tmp_path / "c.json")]) == 0
    assert "| 20 | 100 [" in capsys.readouterr().out and (tmp_path / "c.json").is_file()


@pytest.mark.parametrize("bad", ["5", "x=runs", "0=runs", "5="])
def test_a_malformed_point_is_refused(bad, capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "robots", "--json", "c.json", "--curve", bad])
    assert "--curve" in capsys.readouterr().err


def test_missing_ledgers_and_empty_questions_are_named(folders, tmp_path):
    (folders[5] / "cloning.jsonl").unlink()
    with pytest.raises(RolloutError, match="no ledger at"):
        curve(folders, tmp_path / "c.json")
    assert not (tmp_path / "c.json").exists()
    for wrong in ({}, {0: tmp_path}):
        with pytest.raises(ValueError, match="1 or more"):
            curve(wrong)
