"""What readers look at: one theme, figures of tracks, charts with intervals, animations."""

from kinelib.show.animation import animate_tracks, render_tracks
from kinelib.show.charts import compare_bars, compare_lines, training_curve
from kinelib.show.theme import method_style, stamp, theme
from kinelib.show.tracks import contact_sheet, film_strip, show_density, show_futures, show_tracks

__all__ = [
    "animate_tracks",
    "compare_bars",
    "compare_lines",
    "contact_sheet",
    "film_strip",
    "method_style",
    "render_tracks",
    "show_density",
    "show_futures",
    "show_tracks",
    "stamp",
    "theme",
    "training_curve",
]
