"""The alignment measured: retrieval by all protocols beside every ablation, the reasoner, and the tokenizer.

Retrieval with the reasoner's texts ("predicted") and with those the annotator wrote from the very motion that is looked for
("oracle", which gives the answer away) stand in tables of their own. Whether the hierarchy helps is told by paired
differences on the same clips: it does where their interval is above zero (the paper's Table 4 gives no intervals).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import product

import torch

from kinelib.bodies.retrieval import ranks
from kinelib.kinmo.aligner import HierarchicalAligner
from kinelib.kinmo.data import MotionTexts
from kinelib.kinmo.reasoner import Reasoner, accuracy
from kinelib.kinmo.retrieve import Report, compare, per_clip, report
from kinelib.kinmo.rows import Row, of_interval, over_clips, plain
from kinelib.kinmo.sentences import SentenceBank
from kinelib.kinmo.tokenizer_training import measure
from kinelib.kinmo.tokens import MotionTokenizer

WAYS = ("text to motion", "motion to text")
DEPTHS = ("R@1", "R@3", "R@10", "MedR")
FULL, BASELINES = "aligner", ("aligner-global", "aligner-flat")
ROW_NAMES = {
    "aligner-global": "global only",
    "aligner-flat": "flat: all sentences in one sequence",
    "aligner-group": "+ group",
    "aligner": "+ interaction (all)",
    "aligner-no-cross": "all, - cross-attention",
}


def retrieval_rows(
    aligners: Mapping[str, HierarchicalAligner], motions: MotionTexts, bank: SentenceBank, reasoner: Reasoner, where: str
) -> list[Row]:
    """Protocols (a) to (d) and by label, both ways, of every aligner there is, with predicted and then with oracle texts.

    Args:
        aligners: by stage, see `ROW_NAMES`.
        motions: held-out clips. bank: with their sentences and the reasoner's.
        reasoner: of the predicted texts.
        where: what the clips are, for the heading.
    """
    rows = []
    stages = [stage for stage in ROW_NAMES if stage in aligners]
    for texts, source in (("predicted", reasoner), ("oracle", None)):
        table = f"retrieval, {where}, {texts} texts" + (" (they give the answer away)" if source is None else "")
        found = {stage: report(aligners[stage], motions, bank, source) for stage in stages}
        for stage in stages:
            rows += protocol_rows(table, ROW_NAMES[stage], found[stage])
        rows += label_rows(table, motions)
        if FULL in found:
            for baseline in (one for one in BASELINES if one in found):
                rows += difference_rows(table, baseline, found[FULL], found[baseline], motions)
    return rows


def protocol_rows(table: str, what: str, found: Report) -> list[Row]:
    """All numbers of one report; those of protocol (a) with intervals over clips."""
    rows = []
    for name, one in found.protocols.items():
        sizes = dict(gallery=one.gallery)
        for way, numbers in zip(WAYS, (one.text_to_motion, one.motion_to_text), strict=True):
            each = per_clip(ranks(found.scores if way == WAYS[0] else found.scores.T)) if name == "a" else {}
            for depth in DEPTHS:
                unit, metric = "" if depth == "MedR" else "%", f"({name}) {depth}, {way}"
                more = sizes | {"chance": one.chance[depth]}
                if depth in each:
                    rows += over_clips(table, what, metric, each[depth], unit, **more)
                else:
                    rows.append(plain(table, what, metric, numbers[depth], one.queries, unit, **more))
    return rows


def label_rows(table: str, motions: MotionTexts) -> list[Row]:
    """Protocol (a) for somebody who knows content and style of every clip and nothing else: R@k by luck among equals.

    It is the ceiling of reading labels right, both ways. Whoever is above it tells clips of one content and style apart.
    """
    alike = Counter(motions.labels)
    share = lambda label, depth: 100.0 * min(depth, alike[label]) / alike[label]
    rows = []
    for way, depth in product(WAYS, (1, 3, 10)):
        values = torch.tensor([share(label, depth) for label in motions.labels])
        more = {"gallery": len(motions), "chance": 100.0 * depth / len(motions)}
        rows += over_clips(table, "content and style known, nothing else", f"(a) R@{depth}, {way}", values, "%", **more)
    return rows


def difference_rows(table: str, baseline: str, ours: Report, theirs: Report, motions: MotionTexts) -> list[Row]:
    """How far the full aligner is above a baseline, clip by clip: by protocol (a), and where a clip's label counts."""
    rows = []
    for protocol, labels in (("a", None), ("label", motions.labels)):
        for metric, found in compare(ours, theirs, labels=labels).items():
            what = f"all minus {ROW_NAMES[baseline].split(':')[0]}"
            rows.append(
                of_interval(table, what, f"({protocol}) {metric}", found, "points", target=0.0, gallery=len(motions))
            )
    return rows


def reasoner_rows(reasoner: Reasoner, motions: MotionTexts, where: str) -> list[Row]:
    """How often the reasoner says of clips it does not know what the annotator says; chance: the most frequent sentence."""
    found, rows = accuracy(reasoner, motions), []
    for part in ("groups", "interactions"):
        guess = 100 * found[f"{part}, most frequent"]
        rows.append(plain("reasoner", where, f"{part}: same sentence", 100 * found[part], len(motions), "%", chance=guess))
    for part, name in (("valid", "all 21 sentences there"), ("mirrored", "mirrored text, mirrored sentences")):
        rows.append(plain("reasoner", where, name, 100 * found[part], len(motions), "%", target=100.0))
    return rows


def tokenizer_rows(model: MotionTokenizer, motions: MotionTexts) -> list[Row]:
    """What is left of held-out clips after tokenizing, and how many codes are in use, by source and in all."""
    table, rows = "tokenizer", []
    sources = {"all held-out clips": list(range(len(motions)))}
    for source in dict.fromkeys(motions.sources):
        sources[source] = [row for row, own in enumerate(motions.sources) if own == source]
    for what, chosen in sources.items() if len(sources) > 2 else [*sources.items()][:1]:
        found = measure(model, motions.pick(chosen))
        numbers = {
            "MPJPE, pelvis in place": (found.local_cm, "cm", 4.0),
            "MPJPE in the world": (found.global_cm, "cm", None),
            "slide of planted feet": (found.skate_cm, "cm/s", None),
            "slide of planted feet, originals": (found.original_skate_cm, "cm/s", None),
        }
        rows += [
            plain(table, what, name, value, found.clips, unit, target=goal) for name, (value, unit, goal) in numbers.items()
        ]
    found = measure(model, motions)
    used, perplexity = 100 * torch.tensor(found.used), 100 * torch.tensor(found.perplexity)
    rows.append(plain(table, "all held-out clips", "codes in use", used.mean(), found.clips, "%", target=50.0))
    for name, own, spread in zip(model.config.groups, used, perplexity, strict=True):
        for layer, (one, two) in enumerate(zip(own.tolist(), spread.tolist(), strict=True)):
            what = f"{name}, codebook {layer}"
            rows.append(plain(table, what, "codes in use", one, found.clips, "%"))
            rows.append(plain(table, what, "perplexity, share of the codes", two, found.clips, "%"))
    return rows
