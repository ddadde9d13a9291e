"""The paper's Motion Reasoner as an adapter: a causal language model of your own, fine-tuned with LoRA (KinMo, Section 3).

The paper fine-tunes LLaMA-3 with the plain next-token loss: the global text goes in, six group sentences and fifteen
interaction sentences come out. Which size, rank and schedule it used is not published; those here are ours. The answer is
one JSON object with a fixed order of keys. What the model writes is validated key by key; an answer that is not whole is
asked for again and then replaced by `Reasoner`'s, so that a text always gets its 21 sentences.

Needs `pip install peft` and a causal model, as a folder or from the hub; neither is part of the default install. Training
goes through `learning.fit`, that is, Accelerate: plain Python, or torchrun for several GPUs.

Shapes: tokens (B, L) of question and answer; the loss counts tokens of the answer only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinelib.bodies.skeleton import GROUPS
from kinelib.kinmo.data import SLOT_KEYS, MotionTexts
from kinelib.kinmo.groups import PAIR_KEYS
from kinelib.kinmo.reasoner import Reasoned, Reasoner
from kinelib.kinmo.records import RecordError, check_keys, check_sentence
from kinelib.learning.fit import FitConfig, FitResult, fit

TASK = (
    "You describe human motion. For the text you are given, write what every body part does and how every pair of parts "
    "moves against each other, one sentence a key, as one JSON object and no more. Left and right are the person's own. "
    f"Keys, in this order: {', '.join(SLOT_KEYS)}."
)
UNCOUNTED = -100  # label of tokens that the loss leaves out


@dataclass(frozen=True)
class LoraSizes:
    """How the language model is adapted."""

    rank: int = 16  # of the added matrices
    alpha: int = 32  # they are multiplied by alpha / rank
    dropout: float = 0.05  # of their input
    longest: int = 1536  # tokens of question and answer; longer examples are refused
    batch: int = 4  # examples a step


class LoraReasoner:
    """Global text -> group and interaction texts, by a causal language model.

    Args:
        model: a transformers causal model, adapted or not.
        tokenizer: its own.
        fallback: answers where the model's answer is not whole.
        tries: how often the model is asked for one text, the first time without chance.
        longest: new tokens an answer may have.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, fallback: Reasoner, *, tries: int = 3, longest: int = 1024) -> None:
        self.model, self.tokenizer, self.fallback = model.eval(), tokenizer, fallback
        self.tries, self.longest = tries, longest

    @classmethod
    def load(cls, folder: str | Path, fallback: Reasoner, **options: Any) -> LoraReasoner:
        """A reasoner that :func:`fine_tune` saved.

        Raises:
            ImportError: without peft.
        """
        peft, transformers = _packages()
        model = peft.AutoPeftModelForCausalLM.from_pretrained(str(folder))
        return cls(model, transformers.AutoTokenizer.from_pretrained(str(folder)), fallback, **options)

    def reason(self, texts: Sequence[str], *, seed: int = 0) -> list[Reasoned]:
        """Six and fifteen sentences for every text; a text whose answers are never whole gets the fallback's.

        Args:
            texts: global texts.
            seed: of the second try and those after it, which are sampled.
        """
        return [self.valid(text, seed) or self.fallback.reason([text])[0] for text in texts]

    def valid(self, text: str, seed: int = 0) -> Reasoned | None:
        """The model's own answer, None where no try gave a whole one: the share of these is its "bad response rate"."""
        for number in range(self.tries):
            try:
                return parse_answer(self._written(text, None if number == 0 else seed + number))
            except RecordError:
                continue
        return None

    @torch.no_grad()
    def _written(self, text: str, seed: int | None) -> str:
        asked = torch.tensor([question(text, self.tokenizer)], device=next(self.model.parameters()).device)
        if seed is not None:
            torch.manual_seed(seed)
        written = self.model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=self.longest,
            do_sample=seed is not None,
            pad_token_id=_padding(self.tokenizer),
        )
        return self.tokenizer.decode(written[0, asked.shape[1] :], skip_special_tokens=True)


def question(text: str, tokenizer: Any) -> list[int]:
    """Tokens of the task and a global text, in the model's own chat format where it has one."""
    if getattr(tokenizer, "chat_template", None):
        said = [{"role": "system", "content": TASK}, {"role": "user", "content": text}]
        return list(tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=True)["input_ids"])
    return list(tokenizer(f"{TASK}\nText: {text}\nJSON: ")["input_ids"])


def answer(sentences: Sequence[str]) -> str:
    """The 21 sentences as the model is to write them."""
    return json.dumps(dict(zip(SLOT_KEYS, sentences, strict=True)), ensure_ascii=False)


def parse_answer(written: str) -> Reasoned:
    """What the model wrote as sentences by key; words around the JSON object are forgiven.

    Raises:
        RecordError: when there is no object, a key is missing or unknown, a sentence is empty or too long, or a sentence
            about a limb of one side speaks of the other side only.
    """
    start, end = written.find("{"), written.rfind("}")
    try:
        found = json.loads(written[start : end + 1])
    except json.JSONDecodeError as error:
        raise RecordError(f"the answer holds no JSON object: {written[:80]!r}.") from error
    check_keys("the answer", found, SLOT_KEYS)
    for key in SLOT_KEYS:
        check_sentence(f"the answer's {key}", found[key], empty=False)
        if crossed(key, found[key]):
            raise RecordError(f"the answer's {key} is about the other side: {found[key]!r}.")
    return Reasoned({key: found[key] for key in GROUPS}, {key: found[key] for key in PAIR_KEYS})


def crossed(key: str, sentence: str) -> bool:
    """Whether a sentence about a limb of one side names the other side and not its own."""
    sides = [side for side in ("left", "right") if key.startswith(f"{side}_") and "|" not in key]
    if not sides:
        return False
    words = sentence.lower().replace("-", " ").split()
    other = {"left": "right", "right": "left"}[sides[0]]
    return other in words and sides[0] not in words


def examples(motions: MotionTexts, tokenizer: Any, longest: int) -> list[tuple[list[int], int]]:
    """Tokens of question and answer for every wording of every clip, and how many of them are the question.

    Raises:
        ValueError: for an example of more than `longest` tokens.
    """
    made = []
    for said, inner, outer in zip(motions.prompts, motions.groups, motions.interactions, strict=True):
        written = list(tokenizer(answer((*inner, *outer)), add_special_tokens=False)["input_ids"])
        for text in said:
            asked = question(text, tokenizer)
            tokens = [*asked, *written, tokenizer.eos_token_id]
            if len(tokens) > longest:
                raise ValueError(f"{text!r} and its answer are {len(tokens)} tokens; raise LoraSizes.longest ({longest}).")
            made.append((tokens, len(asked)))
    return made


def example_draw(made: Sequence[tuple[list[int], int]], batch: int, padding: int) -> Callable:
    """Batches of examples: input_ids, attention_mask and labels, (B, L) each."""

    def draw(generator: torch.Generator) -> dict[str, Tensor]:
        rows = [made[row] for row in torch.randint(len(made), (batch,), generator=generator).tolist()]
        longest = max(len(tokens) for tokens, _ in rows)
        ids = torch.full((batch, longest), padding)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, UNCOUNTED)
        for row, (tokens, asked) in enumerate(rows):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
            labels[row, asked : len(tokens)] = torch.tensor(tokens[asked:])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    return draw


def next_token_loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """The mean cross-entropy of the answer's tokens."""
    return {"loss": model(**batch).loss}


def fine_tune(
    model: str | Path | nn.Module,
    motions: MotionTexts,
    out: str | Path,
    *,
    tokenizer: Any = None,
    sizes: LoraSizes | None = None,
    steps: int = 2000,
    learning_rate: float = 2e-4,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> FitResult:
    """Adapts a causal language model and saves adapter and tokenizer in `out`, for :meth:`LoraReasoner.load`.

    Args:
        model: a folder, a name on the hub, or a transformers causal model, which then needs `tokenizer`.
        motions: training clips; every wording of each is an example.
        out: folder; state and log go to `out`-training.
        tokenizer: of a model that is passed itself.
        sizes: of the adapter.
        steps: updates. learning_rate: peak. seed: of everything.
        resume: go on with an interrupted training, if there is one. overwrite: replace an older one.

    Raises:
        ImportError: without peft. ValueError: for a model without tokenizer, or an example that is too long.
        FileExistsError: when `out` is there, and neither `overwrite` nor `resume`.
    """
    peft, transformers = _packages()
    sizes, out = sizes or LoraSizes(), Path(out)
    if out.exists() and not (overwrite or resume):
        raise FileExistsError(f"{out} exists; pass overwrite=True to train it afresh, or choose another folder.")
    torch.manual_seed(seed)
    if isinstance(model, (str, Path)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
        model = transformers.AutoModelForCausalLM.from_pretrained(str(model))
    elif tokenizer is None:
        raise ValueError("a model that is passed itself needs its tokenizer as well: tokenizer=...")
    adapter = peft.LoraConfig(
        task_type="CAUSAL_LM", r=sizes.rank, lora_alpha=sizes.alpha, lora_dropout=sizes.dropout, target_modules="all-linear"
    )
    model = peft.get_peft_model(model, adapter)
    made = examples(motions, tokenizer, sizes.longest)
    result = fit(
        model,
        example_draw(made, sizes.batch, _padding(tokenizer)),
        next_token_loss,
        FitConfig(steps=steps, learning_rate=learning_rate, ema_decay=None, seed=seed),
        out.with_name(f"{out.name}-training"),
        resume=resume,
        overwrite=overwrite,
        description="motion reasoner",
    )
    if not result.stopped_early:
        model.save_pretrained(str(out))
        tokenizer.save_pretrained(str(out))
    return result


def _padding(tokenizer: Any) -> int:
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def _packages() -> tuple[Any, Any]:
    try:
        import peft
        import transformers
    except ImportError as error:
        raise ImportError("fine-tuning a language model needs peft and transformers: pip install peft") from error
    return peft, transformers
