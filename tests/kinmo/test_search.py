"""Search by words and by motion, neighbours, and ways between motions."""

import pytest
import torch
from toy_model import Parrot, kinmo
from toy_tokens import Letters, said_clips, said_motions

from kinelib.kinmo.search import MotionIndex, between_meanings, between_motions


@pytest.fixture(scope="module")
def clips():
    return said_clips(5)


@pytest.fixture(scope="module")
def model(clips):
    return kinmo(clips)


@pytest.fixture(scope="module")
def index(model):
    return MotionIndex.of(model.aligner, said_motions(5)[0], Parrot(), Letters())


def test_a_clip_finds_itself_first_and_its_neighbours_without_itself(index, clips):
    for row, clip in enumerate(clips):
        hits = index.by_motion(clip.motion, 5)
        assert hits[0].row == row and hits[0].score == pytest.approx(1.0, abs=1e-4)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        near = index.neighbours(row, 9)
        assert [hit.row for hit in near] == [hit.row for hit in hits[1:]] and row not in [hit.row for hit in near]


def test_words_are_compared_at_all_levels(index, model):
    hits = index.by_text("A person walks.", 3)
    said = Parrot().reason(["A person walks."])[0].sentences
    vectors = Letters().embed(["A person walks.", *said])
    levels = model.aligner.encode_texts(
        {"text": vectors[:1], "groups": vectors[None, 1:7], "interactions": vectors[None, 7:]}
    )
    scores = model.aligner.similarities({name: level.mean for name, level in levels.items()}, index.places)[0]
    assert [hit.row for hit in hits] == scores.topk(3).indices.tolist()
    assert (
        hits[0].score == pytest.approx(float(scores.detach().max()), abs=1e-5)
        and index.motions.prompts[hits[0].row][0] in hits[0].title
    )


def test_without_a_reasoner_the_words_alone_are_heard(model):
    alone = MotionIndex.of(model.aligner, said_motions(5)[0], None, Letters())
    assert len(alone.by_text("A person waves.", 99)) == 5


def test_a_search_box_gets_titles_and_motions(index, clips):
    found = index.search("A person walks.", 2)
    assert len(found) == 2 and found[0][1].provenance["prompt"] in found[0][0]
    hit = index.by_text("A person walks.", 1)[0]
    true = clips[hit.row].motion
    height = lambda motion: motion.positions()[:, :, 1] - motion.positions()[:, :, 1].min()
    assert torch.allclose(height(found[0][1]), height(true)[:-1], atol=2e-2)  # the clip's last frame has no features


@pytest.mark.parametrize(("text", "count", "said"), [(" ", 1, "empty"), ("A walk.", 0, "at least one")])
def test_bad_queries_are_refused(index, text, count, said):
    with pytest.raises(ValueError, match=said):
        index.by_text(text, count)


def test_between_two_motions_both_ends_are_kept(model, clips):
    first, second = clips[0].motion, clips[1].motion
    made = between_motions(model.tokenizer, first, second, (0.0, 0.5, 1.0))
    assert {len(one) for one in made} == {min(len(first), len(second)) - 1}
    same = between_motions(model.tokenizer, first, first, (0.0, 0.5, 1.0))
    assert torch.allclose(same[0].positions(), same[1].positions(), atol=1e-4)
    with_itself = between_motions(model.tokenizer, second, second, (0.0,))[0]
    frames = len(made[2]) - 12  # beyond the end the shorter one was cut
    assert torch.allclose(made[2].positions()[:frames], with_itself.positions()[:frames], atol=1e-2)
    apart = [(made[1].positions() - one.positions()).norm(dim=-1).mean() for one in (made[0], made[2])]
    assert max(apart) < (made[0].positions() - made[2].positions()).norm(dim=-1).mean()


def test_between_two_meanings_there_are_motions(model, index):
    made = between_meanings(model.aligner, index.places[0], index.places[1], (0.0, 0.5, 1.0), frames=30)
    assert [len(one) for one in made] == [30, 30, 30] and all(torch.isfinite(one.root).all() for one in made)
