"""Files that are complete or not there."""

import pytest

from kinelib.learning.files import write_text_whole, written_whole


def test_a_file_is_replaced_only_when_the_new_one_is_complete(tmp_path):
    path = tmp_path / "folder" / "a.json"
    write_text_whole(path, "old é")
    with pytest.raises(RuntimeError, match="stopped"), written_whole(path) as sibling:
        assert sibling.suffix == ".json" and sibling != path
        sibling.write_text("half")
        raise RuntimeError("stopped")
    assert path.read_text(encoding="utf-8") == "old é" and list(path.parent.iterdir()) == [path]
    write_text_whole(path, "new")
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]
