"""`annotate`: files to records; nothing is overwritten, and a foreign file is named."""

import pytest

from kinelib.bodies.motion_files import MotionFileError, save_motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.kinmo.annotate_files import annotate_files
from kinelib.kinmo.records import read_records


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motions")
    clips = procedural_clips(2, 5, contents=("raise-up-left-hand",))
    return [
        save_motion(clip.motion, folder / f"{name}.{kind}")
        for clip, name, kind in zip(clips, "ab", ("npz", "bvh"), strict=True)
    ]


def test_files_become_records_of_their_names(files, tmp_path):
    made = annotate_files(files, tmp_path / "r.jsonl", texts=["Somebody moves."])
    assert [one.name for one in made] == ["a", "b"] and made[0].texts == ("Somebody moves.",)
    assert read_records(tmp_path / "r.jsonl") == made
    arms = " ".join(made[0].groups[name] for name in ("left_arm", "right_arm"))
    assert "rises" in arms or "raise" in arms or "up" in arms, arms


def test_bad_input_is_named(files, tmp_path):
    with pytest.raises(ValueError, match="at least one motion file"):
        annotate_files([])
    with pytest.raises(FileNotFoundError):
        annotate_files([tmp_path / "none.npz"])
    (tmp_path / "words.npz").write_text("no motion")
    with pytest.raises((MotionFileError, ValueError, OSError), match="words.npz"):
        annotate_files([tmp_path / "words.npz"])
    (tmp_path / "old.jsonl").write_text("kept")
    with pytest.raises(FileExistsError, match="old.jsonl"):
        annotate_files(files, tmp_path / "old.jsonl")
    assert (tmp_path / "old.jsonl").read_text() == "kept"
