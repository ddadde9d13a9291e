"""Point tracks: what they are, scenes that have exact ones, trackers that estimate them, files that keep them."""

from kinelib.tracks.tracks import Poke, Tracks, pack_pokes

__all__ = ["Poke", "Tracks", "pack_pokes"]
