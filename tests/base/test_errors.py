"""The error tree."""

import inspect
import pickle
import re

import pytest

from ivcap_flows import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.IvcapFlowsError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_survives_pickling_with_its_data(cls):
    """Errors cross processes: class, message and data come back equal."""
    error = cls("The thing is broken.", status=503, names=["a"])
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is cls and str(back) == "The thing is broken." and back.data == {"status": 503, "names": ["a"]}
    assert back.status == 503 and back.names == ["a"]


def test_an_unknown_attribute_is_an_attribute_error():
    """Data is reached as attributes, and nothing else is."""
    with pytest.raises(AttributeError, match="no attribute 'status'"):
        _ = errors.IvcapFlowsError("m").status


def test_the_drawn_tree_is_the_real_one():
    """The tree at the top of the module names every class under its base."""
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


def test_every_class_is_public():
    """`__all__` lists every error."""
    assert sorted(errors.__all__) == sorted(c.__name__ for c in CLASSES)
