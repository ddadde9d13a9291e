"""The language model as a reasoner: answers that are whole or not, examples, the fallback, and a tiny fine-tuning."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from toy_tokens import said_motions

from kinelib.kinmo import reasoner_lora
from kinelib.kinmo.data import SLOT_KEYS
from kinelib.kinmo.reasoner import Reasoned, Reasoner
from kinelib.kinmo.reasoner_lora import (
    LoraReasoner,
    LoraSizes,
    answer,
    crossed,
    example_draw,
    examples,
    parse_answer,
    question,
)
from kinelib.kinmo.records import RecordError

WHOLE = {key: f"The {key.replace('_', ' ').replace('|', ' and the ')} moves." for key in SLOT_KEYS}


class Bytes:
    """A tokenizer of bytes."""

    eos_token_id, pad_token_id, chat_template = 0, None, None

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": list(text.encode())}

    def decode(self, tokens, skip_special_tokens=True):
        return bytes(int(token) for token in tokens if token).decode(errors="replace")

    def save_pretrained(self, folder):
        return None


class Writer(torch.nn.Module):
    """A model that has its answers ready, one a call."""

    def __init__(self, *answers):
        super().__init__()
        self.weight, self.answers, self.sampled = torch.nn.Parameter(torch.zeros(1)), list(answers), []

    def generate(self, input_ids, do_sample, **options):
        self.sampled.append(do_sample)
        return torch.cat([input_ids, torch.tensor([list(self.answers.pop(0).encode())])], 1)


@pytest.fixture(scope="module")
def said():
    return said_motions(3)


# ---- answers


def test_an_answer_comes_back_as_it_was_written():
    found = parse_answer(f"Sure! {answer([*WHOLE.values()])} Anything else?")
    assert isinstance(found, Reasoned) and found.sentences == tuple(WHOLE.values())
    shuffled = dict(reversed(WHOLE.items()))
    assert parse_answer(json.dumps(shuffled)) == found


@pytest.mark.parametrize(
    "written, named",
    [
        ("no object", "no JSON object"),
        (json.dumps({key: WHOLE[key] for key in SLOT_KEYS[1:]}), "torso"),
        (json.dumps(WHOLE | {"tail": "It wags."}), "tail"),
        (json.dumps(WHOLE | {"neck": " "}), "neck"),
        (json.dumps(WHOLE | {"neck": 3}), "neck"),
        (json.dumps(WHOLE | {"left_arm": "The right arm waves."}), "other side"),
    ],
)
def test_answers_that_are_not_whole_are_refused(written, named):
    with pytest.raises(RecordError, match=named):
        parse_answer(written)


def test_sides():
    assert crossed("left_leg", "The right leg steps.") and not crossed("left_leg", "The left leg follows the right leg.")
    assert not crossed("torso", "The torso turns right.") and not crossed("left_arm|right_arm", "The right arm leads.")


def test_a_bad_answer_is_asked_for_again_and_then_replaced(said):
    motions, bank = said
    fallback = Reasoner.learn(motions, bank)
    text, good = motions.prompts[0][0], json.dumps(WHOLE)
    model = Writer("nothing", good)
    found = LoraReasoner(model, Bytes(), fallback).reason([text])
    assert found[0].sentences == tuple(WHOLE.values()) and model.sampled == [False, True]
    hopeless = LoraReasoner(Writer("a", "b"), Bytes(), fallback, tries=2)
    assert hopeless.reason([text]) == fallback.reason([text])


# ---- training


def test_examples_count_the_answer_only(said):
    motions, _ = said
    made = examples(motions, Bytes(), longest=10_000)
    assert len(made) == sum(map(len, motions.prompts))
    tokens, asked = made[0]
    written = Bytes().decode(tokens[asked:])
    assert parse_answer(written).sentences == (*motions.groups[0], *motions.interactions[0]) and tokens[-1] == 0
    batch = example_draw(made, 3, padding=0)(torch.Generator().manual_seed(0))
    for ids, mask, labels in zip(*batch.values(), strict=True):
        counted = labels != -100
        assert torch.equal(labels[counted], ids[counted]) and bool(mask[counted].all())
        assert Bytes().decode(ids[counted]).startswith("{")
    with pytest.raises(ValueError, match="LoraSizes.longest"):
        examples(motions, Bytes(), longest=100)


def test_a_chat_format_is_used_where_there_is_one():
    heard = []
    tokenizer = SimpleNamespace(
        chat_template="x", apply_chat_template=lambda said, **options: heard.append(said) or {"input_ids": [1, 2]}
    )
    assert question("A person walks.", tokenizer) == [1, 2]
    assert [one["role"] for one in heard[0]] == ["system", "user"] and heard[0][1]["content"] == "A person walks."


def test_without_the_package_it_says_what_to_install(said, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match="pip install peft"):
        reasoner_lora.fine_tune("any", said[0], tmp_path / "lora")


def test_a_tiny_model_learns_its_answers(said, tmp_path):
    pytest.importorskip("peft")
    from transformers import LlamaConfig, LlamaForCausalLM

    motions, bank = said
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, max_position_embeddings=4096, **sizes))
    options = dict(tokenizer=Bytes(), sizes=LoraSizes(rank=4, longest=4096, batch=1), learning_rate=1e-2)
    result = reasoner_lora.fine_tune(model, motions.pick([0]), tmp_path / "lora", steps=12, **options)
    assert result.losses[-1]["loss"] < result.losses[0]["loss"]
    assert (tmp_path / "lora" / "adapter_model.safetensors").stat().st_size > 0
    with pytest.raises(FileExistsError, match="overwrite"):
        reasoner_lora.fine_tune(model, motions, tmp_path / "lora", **options)
    with pytest.raises(ValueError, match="tokenizer"):
        reasoner_lora.fine_tune(model, motions, tmp_path / "other")
