"""A cache's name changes with what code does, and with nothing else."""

from kinelib.learning.code_version import code_hash, meaning

CODE = '''
def double(x: float) -> float:
    """Twice."""
    return 2 * x
'''


def test_comments_docstrings_and_layout_mean_nothing():
    same = "def double(\n    x: float,\n) -> float:  # of a number\n    'Two times.'\n    return (2 * x)\n"
    assert meaning(same) == meaning(CODE)
    assert meaning(CODE.replace("2 *", "3 *")) != meaning(CODE)


def test_files_count_in_their_order(tmp_path):
    a, b = tmp_path / "a.py", tmp_path / "b.py"
    a.write_text(CODE)
    b.write_text(CODE.replace("2 *", "3 *"))
    before = code_hash([a, b])
    assert len(before) == 10 and code_hash([b, a]) != before
    a.write_text(f"# A comment.{CODE}")
    assert code_hash([a, b]) == before
    a.write_text(CODE.replace("return", "x += 1\n    return"))
    assert code_hash([a, b]) != before
