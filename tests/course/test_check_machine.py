"""The environment check finds what is missing and says what to do."""

from __future__ import annotations

import importlib.metadata

import pytest

from kinelib.course.check import ABSENT, FAIL, OK, Finding, check, findings, packages


def test_packages_are_compared_with_their_pins(tmp_path):
    have = importlib.metadata.version("numpy")
    path = tmp_path / "requirements.txt"
    path.write_text(f"# comment\n\nnumpy=={have}   # arrays\neinops\nnumpy==0.0.1\nno-such-package-of-ours==1.0\n-e .\n")
    found = [(one.mark, one.what) for one in packages(path)]
    assert found == [(OK, "numpy"), (OK, "einops"), (FAIL, "numpy"), (FAIL, "no-such-package-of-ours")]
    said = [one.said for one in packages(path)]
    assert said[0] == have and "pinned to 0.0.1" in said[2] and "make install" in said[3]


def test_a_local_build_satisfies_its_pin(tmp_path, monkeypatch):
    monkeypatch.setattr("kinelib.course.check.importlib.metadata.version", lambda name: "2.13.0+cpu")
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    assert [one.mark for one in packages(tmp_path / "requirements.txt")] == [OK]
    (tmp_path / "requirements.txt").write_text("torch==2.13\n")
    assert [one.mark for one in packages(tmp_path / "requirements.txt")] == [FAIL]


def test_an_empty_folder_fails_with_what_to_do(tmp_path, capsys):
    assert not check(tmp_path)
    said = capsys.readouterr().out
    for line in ("requirements.txt", "checkpoints", "sample clips"):
        assert f"[FAIL] {line}" in said
    assert "git restore data" in said and "Mend the lines" in said


def test_damaged_files_fail_and_the_rest_is_still_checked(tmp_path):
    broken = tmp_path / "data/checkpoints/net"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{}")
    (broken / "model.safetensors").write_bytes(b"no")
    (tmp_path / "data/samples").mkdir()
    (tmp_path / "data/samples/clip.mp4").write_bytes(b"no video")
    marks = {one.what: one.mark for one in findings(tmp_path)}
    assert marks["checkpoint net"] == FAIL and marks["clip clip.mp4"] == FAIL and marks["ffmpeg"] == OK
    assert marks["CUDA"] in (OK, ABSENT)


def test_findings_line_up():
    assert str(Finding(OK, "torch", "2.13.0")) == "[OK]   torch                        2.13.0"


@pytest.mark.slow
def test_this_machine_is_ready(repository):
    bad = [str(one) for one in findings(repository) if one.mark == FAIL]
    assert not bad, "\n".join(bad)
