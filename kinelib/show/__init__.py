"""What readers look at: one theme, figures of tracks and bodies, charts with intervals, animations."""

from kinelib.show.animation import animate_tracks, render_tracks
from kinelib.show.bodies import compare_strips, motion_strip, root_paths, show_skeleton
from kinelib.show.charts import compare_bars, compare_lines, training_curve
from kinelib.show.motion_export import save_film
from kinelib.show.theme import method_style, stamp, theme
from kinelib.show.tracks import contact_sheet, film_strip, show_density, show_futures, show_tracks

__all__ = [
    "animate_tracks",
    "compare_bars",
    "compare_lines",
    "compare_strips",
    "contact_sheet",
    "film_strip",
    "method_style",
    "motion_strip",
    "render_tracks",
    "root_paths",
    "save_film",
    "show_density",
    "show_futures",
    "show_skeleton",
    "show_tracks",
    "stamp",
    "theme",
    "training_curve",
]
