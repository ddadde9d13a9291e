"""`MotionSearch`: a box to type a sentence into, and a player of the motions that are found.

    box = MotionSearch(index.search)         # any callable: text -> [(title, Motion), ...]
    box.query("a person waves with the left hand")
    box                                      # in a notebook: type, press Enter

This room knows no model: what is searched, and how, is the callable's affair. An executed notebook keeps the PNG of the
player for the last query.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence

import ipywidgets

from kinelib.bodies.motion import Motion
from kinelib.show.motion_data import MOST
from kinelib.show.motion_player import MotionPlayer, headless, words_of
from kinelib.show.pictures import encode_png

Search = Callable[[str], Sequence[tuple[str, Motion]]]


class MotionSearch(ipywidgets.VBox):
    """A text box above a player.

    Args:
        search: from a text to titles and motions, the best first; more than a player shows are left out.
        text: the first query.
        examples: queries to choose from by a click.

    Raises:
        TypeError: when `search` cannot be called. ValueError: for an empty first query; whatever `search` raises for it.
    """

    def __init__(self, search: Search, text: str = "a person walks forward", examples: Sequence[str] = ()) -> None:
        if not callable(search):
            raise TypeError(f"search is a callable from a text to (title, Motion) pairs; got {type(search).__name__}.")
        self._search = search
        self.titles: tuple[str, ...] = ()
        self.player: MotionPlayer | None = None
        wide = ipywidgets.Layout(width="100%")
        self.box = ipywidgets.Text(value=text, placeholder="what shall be found?", continuous_update=False, layout=wide)
        self.status = ipywidgets.HTML()
        self._buttons = [ipywidgets.Button(description=example, tooltip=example) for example in examples]
        for button in self._buttons:
            button.on_click(lambda clicked: setattr(self.box, "value", clicked.description))
        self.query(text)
        self.box.observe(lambda change: self._typed(change["new"]), "value")
        row = [ipywidgets.HBox(self._buttons)] if self._buttons else []
        super().__init__([self.box, *row, self.status, self.player])

    def query(self, text: str) -> list[Motion]:
        """Looks for a text, shows what is found and returns the motions, the best first.

        Raises:
            ValueError: for an empty text. LookupError: when nothing is found.
        """
        if not text.strip():
            raise ValueError("say what you are looking for: the text is empty.")
        found = list(self._search(text))[:MOST]
        if not found:
            raise LookupError(f"nothing was found for {text!r}.")
        self.titles, motions = tuple(title for title, _ in found), [motion for _, motion in found]
        if self.player is None:
            self.player = MotionPlayer(motions, self.titles, title=text)
        else:
            self.player.show(motions, self.titles)
            self.player.title = text
        self.status.value = f"{len(found)} motions, the best first"
        return motions

    def _typed(self, text: str) -> None:
        """From the page: mistakes are told there."""
        try:
            self.query(text)
        except (ValueError, LookupError, OSError) as error:
            self.status.value = html.escape(words_of(error))

    def open(self) -> None:
        """Opens the way to the page; where nobody watches there is none, as for the player inside."""
        if not headless():
            super().open()

    def _repr_mimebundle_(self, **options):
        """The live widgets, and a PNG for where there is no kernel; where nobody watches, the PNG alone."""
        data = {"text/plain": repr(self)} if headless() else super()._repr_mimebundle_(**options)
        return data | {"image/png": base64.b64encode(encode_png(self.player.snapshot())).decode()}

    def __repr__(self) -> str:
        return f"MotionSearch({self.player.title!r}: {'; '.join(self.titles)})"
