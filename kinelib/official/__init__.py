"""Officially released weights in our modules, and the check that both compute the same numbers.

`load_official` reads released state dicts of ZipMo (`reading`, `layout`, `zipmo`, `zipmo_libero`), `load_kimodo` and
`load_tmr` those of Kimodo and TMR; `parity` and `parity_report` run recorded inputs of the official implementations through
our modules (`zipmo_cases`, `kimodo_cases`, `tmr`, `report`). `generate_tracks` draws futures with released weights of ZipMo,
whose image encoder travels along (`vision`).
"""

from kinelib.official.generate import generate_tracks
from kinelib.official.kimodo import load_kimodo
from kinelib.official.report import ParityRow, parity, parity_report
from kinelib.official.tmr import load_tmr
from kinelib.official.zipmo import HUB_REPOSITORY, Official, load_official

__all__ = [
    "HUB_REPOSITORY",
    "Official",
    "ParityRow",
    "generate_tracks",
    "load_kimodo",
    "load_official",
    "load_tmr",
    "parity",
    "parity_report",
]
