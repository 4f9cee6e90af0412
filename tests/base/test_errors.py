"""The error tree."""

import inspect
import pickle
import re

import pytest

from ivcap_flows import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.IvcapFlowsError)]


def test_an_error_survives_pickling_with_its_data():
    """Errors cross processes: class, message and data come back equal. Data is reached as attributes, nothing else."""
    for cls in CLASSES:
        back = pickle.loads(pickle.dumps(cls("The thing is broken.", status=503, names=["a"])))
        assert type(back) is cls and str(back) == "The thing is broken."
        assert back.data == {"status": 503, "names": ["a"]} and back.status == 503 and back.names == ["a"]
    with pytest.raises(AttributeError, match="no attribute 'status'"):
        _ = errors.IvcapFlowsError("m").status


def test_the_drawn_tree_is_the_real_one():
    """The tree at the top of the module names every class under its base, and `__all__` lists every error."""
    drawn: dict[str, str | None] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.search(r"([A-Za-z]+Error)\b", line):
            depth = found.start()
            while stack and stack[-1][0] >= depth:
                stack.pop()
            drawn[found[1]] = stack[-1][1] if stack else None
            stack.append((depth, found[1]))
    real = {c.__name__: c.__base__.__name__ if c is not errors.IvcapFlowsError else None for c in CLASSES}
    assert drawn == real
    assert sorted(errors.__all__) == sorted(real)
