"""`retrieve`: a sentence or a motion, one of the two, and never over an older file."""

import pytest

from kinelib.bodies.motion_files import load_motion, save_motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.kinmo.pretrained import SHIPPED
from kinelib.kinmo.search_files import retrieve_motions

shipped = pytest.mark.skipif(not (SHIPPED / "aligner").is_dir(), reason="no aligner is shipped yet")


def test_one_question_at_a_time(tmp_path):
    with pytest.raises(ValueError, match="exactly one"):
        retrieve_motions(" ")
    with pytest.raises(ValueError, match="exactly one"):
        retrieve_motions("a walk", motion=tmp_path / "walk.npz")
    (tmp_path / "old.npz").write_text("kept")
    with pytest.raises(FileExistsError, match="old.npz"):
        retrieve_motions("a walk", out=tmp_path / "old.npz")
    with pytest.raises(FileNotFoundError):
        retrieve_motions(motion=tmp_path / "none.npz")


@shipped
def test_words_and_motions_find_their_kind(tmp_path):
    hits, searched = retrieve_motions("A person jumps up and down.", cache=tmp_path, count=3, out=tmp_path / "found.npz")
    assert searched >= 100 and sum("jump" in hit.title for hit in hits) >= 2, hits
    assert hits[0].score >= hits[1].score and len(load_motion(tmp_path / "found.npz")) > 20
    kick = save_motion(procedural_clips(1, 99, contents=("kick-left",))[0].motion.resampled(30), tmp_path / "kick.npz")
    hits, _ = retrieve_motions(motion=kick, cache=tmp_path, count=3)
    assert sum("kick-left" in hit.title for hit in hits) >= 2, hits
