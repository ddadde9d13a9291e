"""Officially released weights in our modules, and the check that both compute the same numbers.

`load_official` reads released state dicts (`reading`, `layout`, `zipmo`, `zipmo_libero`); `parity` and `parity_report` run
recorded inputs of the official implementations through our modules (`zipmo_cases`, `report`). `generate_tracks` draws
futures with released weights, whose image encoder travels along (`vision`).
"""

from kinelib.official.generate import generate_tracks
from kinelib.official.report import ParityRow, parity, parity_report
from kinelib.official.zipmo import HUB_REPOSITORY, Official, load_official

__all__ = ["HUB_REPOSITORY", "Official", "ParityRow", "generate_tracks", "load_official", "parity", "parity_report"]
