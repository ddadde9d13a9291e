"""The README.md that travels with a folder of track shards: what it holds, measured from the files themselves.

The front matter is what data set hubs and `datasets.load_dataset(folder)` read.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from kinelib.learning.files import write_text_whole

MEANING = {
    "clip_id": "unique name of the clip",
    "fps": "frames a second; empty where unknown",
    "height": "height of the video in pixels, 0 where unknown",
    "width": "width of the video in pixels, 0 where unknown",
    "num_points": "N, points in this clip",
    "num_frames": "T, frames in this clip",
    "tracks": "(N, T, 2) little-endian float16, xy in [-1, 1] across the frame (edges at -1 and 1), row-major",
    "visible": "N * T bits in numpy.packbits order, 1 = visible",
    "first_frame": "JPEG or PNG bytes of frame 0",
    "caption": "a sentence, or empty",
    "label": "a class, or empty",
    "provenance": "json: source, tracker, licence and what else the maker recorded",
}


def write_shard_card(folder: str | Path, card, columns: dict[str, str]) -> Path:
    """Writes folder/README.md from the card's facts and the shards that are there.

    Args:
        folder: a folder of complete shards.
        card: a ShardCard.
        columns: name and Arrow type of every column.
    """
    import pyarrow.parquet

    folder = Path(folder)
    clips = points = shards = 0
    frames, sources = Counter(), Counter()
    for file in sorted(folder.glob("*.parquet")):
        table = pyarrow.parquet.read_table(file, columns=["num_points", "num_frames", "provenance"])
        shards, clips = shards + 1, clips + table.num_rows
        points += sum(table["num_points"].to_pylist())
        frames.update(table["num_frames"].to_pylist())
        for text in table["provenance"].to_pylist():
            facts = json.loads(text)
            sources[f"{Path(facts.get('source') or 'unnamed').name}, tracks by {facts.get('tracker', 'unknown')}"] += 1
    lengths = ", ".join(f"{length} frames ({count} clips)" for length, count in sorted(frames.items()))
    lines = [
        "---",
        f"pretty_name: {json.dumps(card.name)}",
        "configs:",
        "- config_name: default",
        '  data_files: "*.parquet"',
        "---",
        "",
        f"# {card.name}",
        "",
        *([card.description, ""] if card.description else []),
        f"- **Licence**: {card.licence}",
        f"- **Origin**: {card.origin}",
        f"- **Counts**: {clips} clips in {shards} shards, {points} tracks; {lengths or 'no clips yet'}",
        "- **Precision**: tracks are float16; inside the frame the step is at most 1/4096 of the frame (0.06 pixels of 256)",
        *(f"- **{name}**: {value}" for name, value in card.facts.items()),
        "",
        "| column | type | meaning |",
        "|---|---|---|",
        *(f"| {name} | {kind} | {MEANING[name]} |" for name, kind in columns.items()),
        "",
        "| source | clips |",
        "|---|---|",
        *(f"| {source} | {count} |" for source, count in sorted(sources.items())),
        "",
        "Read it with `TrackShards(folder)` (any clip by number) or `stream_shards(folder)` of `kinelib.tracks.shards`.",
        "",
    ]
    path = folder / "README.md"
    write_text_whole(path, "\n".join(lines))
    return path
