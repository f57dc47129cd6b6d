"""Which arguments a command hands on: its functions are stood in for, and nothing is done."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import pytest


def record(monkeypatch: pytest.MonkeyPatch, target: str, answer: Any = None) -> list[dict]:
    """Put a recorder in the place of a function; return the list that its calls go to.

    Parameters
    ----------
    monkeypatch : undoes it after the test.
    target : where the function is looked up, e.g. ``lungdet_mmdet.apis.infer.detect_scans``.
    answer : what it returns.

    Returns
    -------
    list of dict
        Of each call, the arguments by name; those left out are not in it.
    """
    signature = inspect.signature(pkgutil.resolve_name(target))
    calls: list[dict] = []

    def recorder(*args: Any, **kwargs: Any) -> Any:
        calls.append(dict(signature.bind(*args, **kwargs).arguments))
        return answer

    monkeypatch.setattr(target, recorder)
    return calls


def left_alone(
    parse: Callable[[list[str]], Any], required: Sequence[str], options: Sequence[str]
) -> set[str]:
    """Return the names of arguments that have the same value with these options as without.

    A test of all options compares it with the required ones: a new option is told at once.
    """
    without, given = (vars(parse([*required, *more])) for more in ((), options))
    return {name for name in without if without[name] == given[name]}
