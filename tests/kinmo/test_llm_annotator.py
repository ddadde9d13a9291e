"""The language-model annotator with callables in the place of models: prompt, validation, tries, fallback."""

from __future__ import annotations

import json

import pytest

from kinelib.bodies.procedural import procedural_clips
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.annotate import annotate
from kinelib.kinmo.groups import PAIR_KEYS
from kinelib.kinmo.llm_annotator import annotate_with, annotation_prompt, causal_model, parse_answer
from kinelib.kinmo.records import NEUTRAL, RecordError

KEYFRAMES = ((0, "Standing, both arms down."), (30, "Standing, the left hand above the head."))
GOOD = {"groups": {key: NEUTRAL[key] for key in GROUPS}, "interactions": {key: NEUTRAL[key] for key in PAIR_KEYS}}


@pytest.fixture(scope="module")
def motion():
    return procedural_clips(1, 5, contents=["wave-left-hand"])[0].motion


class Model:
    """Gives prepared answers and remembers what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked, self.name = list(answers), [], "prepared"

    def __call__(self, prompt: str) -> str:
        self.asked.append(prompt)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def test_the_prompt_names_all_keys_times_and_texts():
    prompt = annotation_prompt(KEYFRAMES, 20.0, ("A person waves.",))
    assert all(key in prompt for key in (*GROUPS, *PAIR_KEYS))
    assert "1.50 s: Standing, the left hand above the head." in prompt and "A person waves." in prompt


def test_a_good_answer_becomes_the_record(motion):
    model = Model("Here it is:\n```json\n" + json.dumps(GOOD) + "\n```")
    record = annotate_with(model, motion, ("A person waves.",), keyframes=KEYFRAMES)
    assert record.groups == GOOD["groups"] and record.keyframes == KEYFRAMES and record.texts == ("A person waves.",)
    assert record.provenance == {"annotator": "llm", "tries": 1, "model": "prepared", "prompt_version": 1}


def test_a_refused_answer_is_asked_again_with_what_was_wrong(motion):
    lacking = {"groups": {k: v for k, v in GOOD["groups"].items() if k != "neck"}, "interactions": GOOD["interactions"]}
    model = Model(json.dumps(lacking), json.dumps(GOOD))
    record = annotate_with(model, motion, keyframes=KEYFRAMES)
    assert record.provenance["annotator"] == "llm" and record.provenance["tries"] == 2
    assert "lacks neck" in model.asked[1] and "lacks neck" not in model.asked[0]


def test_the_rules_write_the_record_when_the_model_cannot(motion):
    model = Model("I am sorry.")
    record = annotate_with(model, motion, keyframes=KEYFRAMES, tries=2)
    assert len(model.asked) == 2
    assert record.groups == annotate(motion).groups
    assert record.provenance["annotator"] == "rules" and "no JSON" in record.provenance["fallback"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["groups"].update(left_arm=""), r"left_arm'\] is empty"),
        (lambda c: c["groups"].update(left_arm="The right arm waves."), "about left but its sentence names right"),
        (lambda c: c["groups"].update(neck=["x"]), "must be a sentence"),
        (lambda c: c["groups"].update(neck="x" * 400), "at most 200"),
        (lambda c: c["interactions"].update({"a|b": "x"}), r"unknown a\|b"),
        (lambda c: c.update(note="x"), "unknown note"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(change, said):
    content = json.loads(json.dumps(GOOD))
    change(content)
    with pytest.raises(RecordError, match=said):
        parse_answer(json.dumps(content))


def test_broken_json_and_no_tries_are_refused(motion):
    with pytest.raises(RecordError, match="not valid JSON"):
        parse_answer('{"groups": }')
    with pytest.raises(ValueError, match="tries"):
        annotate_with(Model(""), motion, keyframes=KEYFRAMES, tries=0)


def test_errors_of_the_model_itself_are_passed_on(motion):
    def broken(prompt: str) -> str:
        raise ConnectionError("the service is down")

    with pytest.raises(ConnectionError):
        annotate_with(broken, motion, keyframes=KEYFRAMES)


@pytest.mark.slow
def test_a_local_causal_model_answers_and_the_rules_take_over(motion, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "</s>": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="</s>").save_pretrained(
        tmp_path
    )
    config = transformers.GPT2Config(vocab_size=2, n_positions=1024, n_embd=8, n_layer=1, n_head=2, eos_token_id=1)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    record = annotate_with(causal_model(tmp_path, new_tokens=4), motion, keyframes=KEYFRAMES, tries=1)
    assert record.provenance["annotator"] == "rules" and record.provenance["model"] == str(tmp_path)
