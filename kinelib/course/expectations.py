"""Tolerance bands and exercise checks: how a notebook says what should come out, and notices when it does not.

A band is not a float comparison: it is wide enough for another machine and narrow enough that a broken model falls out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from kinelib.course.lesson import current
from kinelib.course.places import plain_scalar


class ExpectationError(AssertionError):
    """A number fell outside the band that the notebook promised, or an exercise's solution is wrong."""


def expect(value: Any, between: tuple[float, float], why: str) -> float:
    """Checks that a number lies in a band (ends included), prints one line, and counts it in the current lesson.

    Args:
        value: one number; numpy and torch scalars are fine.
        between: (lowest, highest) allowed; ``float("inf")`` leaves a side open.
        why: what the number is and why it should lie there, in a few words.

    Returns:
        the value as a float.

    Raises:
        ExpectationError: when it lies outside or is NaN.
        ValueError: when the band itself makes no sense.
    """
    low, high = (float(end) for end in between)
    if not low <= high:
        raise ValueError(f"between=({low:g}, {high:g}) holds no number; give (lowest, highest).")
    if not why.strip():
        raise ValueError("Say why the value should lie in the band: expect(value, between=..., why='...').")
    try:
        number = float(plain_scalar("the expected value", value))  # type: ignore[arg-type]
    except ValueError:  # NaN and infinity, which a band never holds
        number = float("nan")
    met = low <= number <= high
    lesson = current()
    # The ends are kept as text because JSON has no infinity.
    lesson.expectations.append({"why": why, "value": repr(number), "between": [repr(low), repr(high)], "met": met})
    lesson.save_state()
    if not met:
        raise ExpectationError(
            f"expected {why}: {_band(low, high)}, but it is {number:.4g}. "
            "If you changed a parameter this may be your finding; if not, something is broken."
        )
    print(f"ok: {why}: {number:.4g} ({_band(low, high)})")
    return number


def exercise(name: str, answer: Any, check: Callable[[Any], Any]) -> bool:
    """Checks a reader's answer to an exercise: says "open", "not yet" or "solved" and never stops the notebook.

    When the runner executes the solutions, an answer that is open or wrong is an error.

    Args:
        name: the exercise's name, the same as in the cell's metadata, such as ``"1"``.
        answer: what the reader made; None or ``...`` counts as not attempted.
        check: called with the answer; passes by returning anything but False, fails by raising or returning False.

    Returns:
        True when solved.
    """
    lesson = current()
    message = ""
    if answer is None or answer is ...:
        state = "open"
    else:
        try:
            outcome = check(answer)
            state = "wrong" if outcome is False else "solved"
        except Exception as error:  # a reader's code may fail in any way; every way is "not yet"
            state, message = "wrong", f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    lesson.exercises[name] = state
    lesson.save_state()
    said = {"open": "still open", "solved": "solved", "wrong": f"not yet: {message or 'the check says no'}"}[state]
    print(f"exercise {name}: {said}")
    if state != "solved" and os.environ.get("KINELIB_HEADLESS") == "solutions":
        raise ExpectationError(f"The solution of exercise {name} is {said}.")
    return state == "solved"


def _band(low: float, high: float) -> str:
    if low == float("-inf"):
        return f"at most {high:g}"
    return f"at least {low:g}" if high == float("inf") else f"between {low:g} and {high:g}"
