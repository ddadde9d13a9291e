"""An annotator that asks a language model: any callable from prompt to answer, or a causal model through transformers.

As in KinMo, Section 3: the captions of the keyframes, in order of time, and the global texts go in, six and fifteen
sentences come out. The authors' prompt is not published; ours asks for JSON with exactly the keys of a record. An answer
that is not that is sent back with what is wrong with it, and after the last try the rules write the record instead;
`provenance` tells which it was, so that a set never mixes both unseen (assumption A12).

    record = annotate_with(lambda prompt: my_service(prompt), motion, texts=("A person waves.",), finder=KeyframeFinder())
    record = annotate_with(causal_model("Qwen/Qwen2.5-0.5B-Instruct"), motion, finder=KeyframeFinder())
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from kinelib.bodies.motion import Motion
from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.annotate import annotate
from kinelib.kinmo.groups import PAIR_KEYS
from kinelib.kinmo.keyframes import KeyframeFinder, changes
from kinelib.kinmo.records import LONGEST, Record, RecordError, check_keys, check_sentence

Model = Callable[[str], str]
PROMPT_VERSION = 1

ROLE = f"""You describe how a person moves, one body part at a time.
You are given captions of poses in order of time. Infer the motion between them.
Answer with one JSON object and nothing else: {{"groups": {{...}}, "interactions": {{...}}}}.
"groups" has exactly these {len(GROUPS)} keys: {", ".join(GROUPS)}.
"interactions" has exactly these {len(PAIR_KEYS)} keys: {", ".join(PAIR_KEYS)}.
Every value is one short plain sentence of at most {LONGEST} characters: for a group, what it does over the whole clip; for a
pair, how the two move and stand against each other. Say so where nothing happens. Left and right are the person's own."""


def annotation_prompt(keyframes: Sequence[tuple[int, str]], fps: float, texts: Sequence[str] = ()) -> str:
    """What a model is asked.

    Args:
        keyframes: (frame, caption of the pose), in order of time.
        fps: frames a second.
        texts: global descriptions of the clip.
    """
    said = "".join(f"\nThe whole clip: {text}" for text in texts)
    return f"{ROLE}\n\nPoses:\n{changes(keyframes, fps)}{said}\n\nJSON:"


def parse_answer(answer: str) -> tuple[dict[str, str], dict[str, str]]:
    """The six and the fifteen sentences of an answer; text around the JSON object is passed over.

    Raises:
        RecordError: for an answer that is no such object: what is wrong is said in words that can be sent to the model.
    """
    start, end = answer.find("{"), answer.rfind("}")
    if start < 0 or end < start:
        raise RecordError("the answer holds no JSON object.")
    try:
        content = json.loads(answer[start : end + 1])
    except json.JSONDecodeError as error:
        raise RecordError(f"the answer is not valid JSON: {error}.") from error
    check_keys("the answer", content, ("groups", "interactions"))
    for part, keys in (("groups", GROUPS), ("interactions", PAIR_KEYS)):
        check_keys(part, content[part], keys)
        for key in keys:
            check_sentence(f"{part}[{key!r}]", content[part][key], empty=False)
            check_sides(f"{part}[{key!r}]", key, content[part][key])
    return content["groups"], content["interactions"]


def check_sides(what: str, key: str, sentence: str) -> None:
    """Raises RecordError for a sentence about a limb that names the other side and never its own."""
    sides = {side for side in ("left", "right") if side in key}
    named = set(re.findall(r"\b(left|right)\b", sentence.lower()))
    # Torso and head may turn to any side; a limb's sentence that names sides must name one of its own.
    if sides and named and not sides & named:
        raise RecordError(f"{what} is about {' and '.join(sorted(sides))} but its sentence names {sorted(named)[0]}.")


def annotate_with(
    model: Model,
    motion: Motion,
    texts: Sequence[str] = (),
    *,
    finder: KeyframeFinder | None = None,
    keyframes: Sequence[tuple[int, str]] | None = None,
    name: str = "",
    tries: int = 3,
) -> Record:
    """Asks a model for a record, and falls back to the rules.

    Args:
        model: prompt in, answer out.
        motion: what is described; at least 3 frames.
        texts: global descriptions.
        finder: of the keyframes; None: a `KeyframeFinder` with the shipped encoder, unless `keyframes` are given.
        keyframes: (frame, caption) that are known already.
        name: of the record.
        tries: how often the model is asked, >= 1.

    Returns:
        a record whose provenance holds `annotator` ("llm" or "rules"), `model`, `prompt_version`, `tries`, and in the case
        of a fallback `fallback`: what was wrong with the last answer.

    Raises:
        ValueError: for tries below 1. Errors of the model itself are passed on.
    """
    if tries < 1:
        raise ValueError(f"a model is asked at least once; got tries={tries}.")
    if keyframes is None:
        keyframes = (finder or KeyframeFinder()).find([motion])[0]
    ruled = replace(annotate(motion, texts, name=name), keyframes=tuple(keyframes))
    asked = {"model": _model_name(model), "prompt_version": PROMPT_VERSION}
    question, wrong = annotation_prompt(keyframes, motion.fps, texts), ""
    for attempt in range(1, tries + 1):
        complaint = f"\n(Your last answer was refused: {wrong} Answer with the whole JSON object again.)" if wrong else ""
        try:
            groups, interactions = parse_answer(model(question + complaint))
        except RecordError as error:
            wrong = str(error)
            continue
        return replace(
            ruled,
            groups=groups,
            interactions=interactions,
            provenance={"annotator": "llm", "tries": attempt} | asked,
        )
    return replace(ruled, provenance=ruled.provenance | asked | {"tries": tries, "fallback": wrong})


def causal_model(
    source: str | Path, *, device: str = "cpu", new_tokens: int = 1400, local_files_only: bool | None = None
) -> Model:
    """A causal language model of transformers as a callable, greedy and so the same every time.

    Args:
        source: folder of a model, or its name on the hub.
        device: where it runs.
        new_tokens: longest answer.
        local_files_only: True never downloads; None: only a folder is never looked up on the hub.

    Raises:
        ImportError: without transformers. OSError: when there is no such model.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise ImportError("language models need transformers: pip install -r requirements.txt") from error
    local = Path(source).is_dir() if local_files_only is None else local_files_only
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
    network = AutoModelForCausalLM.from_pretrained(source, local_files_only=local).eval().to(device)

    def answer(prompt: str) -> str:
        ids = tokenizer(prompt, return_tensors="pt")
        if tokenizer.chat_template:
            turn = [{"role": "user", "content": prompt}]
            ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ids = ids.to(device)
        with torch.no_grad():
            out = network.generate(**ids, max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)

    answer.name = str(source)
    return answer


def _model_name(model: Model) -> str:
    return str(getattr(model, "name", None) or getattr(model, "__qualname__", type(model).__name__))
