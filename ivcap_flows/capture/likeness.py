"""The likeness of a wrapper to its function: Prefect tells tasks and flows apart by what it reads of their functions.

All wrappers of a kind share their code. Prefect hashes the code for the key of a task, and its bytecode for the key of
a cached result where there is no source text. It takes the version and the entry point of a flow from the code's file.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import opcode
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

__all__ = ["function_within", "liken"]

_NOP: Final = opcode.opmap["NOP"]
_OF_CLASS: Final = ("__module__", "__qualname__", "__doc__", "__firstlineno__")


def liken(wrapper: Any, function: Callable[..., Any]) -> Any:
    """Return a wrapper that Prefect takes for its function.

    An object without a name, like a partial function, is known by its class alone and has no code. So is its wrapper.
    """
    if not hasattr(function, "__qualname__"):
        kind = type(function)
        names = {name: getattr(kind, name) for name in _OF_CLASS if hasattr(kind, name)}
        return type(kind.__name__, (functools.partial,), names)(wrapper)
    own = _code_of(function)
    shown = own or _code_of(inspect.unwrap(function))
    code: CodeType = wrapper.__code__
    content = own.co_code if own else _name_of(function) + (shown.co_code if shown else b"")
    bytecode = code.co_code + _unreachable(content)
    changes: dict[str, Any] = {"co_code": bytecode}
    if shown:
        # A traceback shows the wrapper as the first line of the function.
        changes |= {"co_filename": shown.co_filename, "co_firstlineno": shown.co_firstlineno}
        changes |= {"co_linetable": _one_line(len(bytecode)), "co_consts": (*code.co_consts, shown)}
    wrapper.__code__ = code.replace(**changes)
    return wrapper


def function_within(wrapper: Any) -> Any:
    """Return the function that runs when a wrapper is called: within a method, and within the wrapper of an object."""
    wrapper = getattr(wrapper, "__func__", wrapper)
    return wrapper.func if isinstance(wrapper, functools.partial) else wrapper


def _code_of(function: Any) -> CodeType | None:
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _name_of(function: Any) -> bytes:
    kind = type(function)
    names = (kind.__module__, kind.__qualname__, getattr(function, "__module__", None), function.__qualname__)
    return ".".join(map(str, names)).encode(errors="surrogatepass")


def _unreachable(content: bytes) -> bytes:
    """Return instructions that differ with a content. They do nothing, and stand behind the last return."""
    digest = hashlib.sha256(content).digest()
    instructions = bytearray((_NOP, 0)) * len(digest)
    instructions[1::2] = digest
    return bytes(instructions)


def _one_line(length: int) -> bytes:
    """Return the line table of a bytecode of that length which is all in its first line."""
    units = length // 2
    if sys.version_info >= (3, 11):
        # An entry covers up to eight units of two bytes. It says: no columns, and no other line than before.
        whole, rest = divmod(units, 8)
        return b"\xef\0" * whole + (bytes((0xE7 + rest, 0)) if rest else b"")
    else:  # noqa: RET505 - the type checker knows one of the two
        return b"\xfe\0" * (units // 127 + 1)
