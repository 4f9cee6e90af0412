"""The exit code of a script that ends by SystemExit, which decides whether the same command continues its run.

Python does not pass it to exit handlers. From Python 3.12 on, the interpreter reports each exception that leaves the
main module. Before, `sys.exit`, `exit` and `quit` are watched from the import of this module on: `sys.exit(main())`
looks up `sys.exit` before it calls `main`. That includes their callers, such as argparse and click; `raise
SystemExit(3)` is not seen.
"""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NoReturn

__all__ = ["failure_of_exit", "watch_exit"]

_MAIN: Final = "__main__"
_TOOL: Final = "ivcap-flows"

_codes: list[Any] = []
"""The codes of the exits that left the main module. The last one counts."""


def watch_exit() -> None:
    """Note the code with which this process will end. A second call does nothing."""
    if sys.version_info >= (3, 12):
        _watch_main_module()


def failure_of_exit() -> str | None:
    """Return the text for an exit that reports a failure; None without an exit, or if its code is 0 or None."""
    code = _codes[-1] if _codes else None
    fails = code is not None and not (isinstance(code, int) and code == 0)
    return f"SystemExit: {code}" if fails else None


if sys.version_info >= (3, 12):

    def _watch_main_module() -> None:
        main, monitoring = _main_module(), sys.monitoring
        # The other ids belong to debuggers, coverage, profilers and optimizers.
        tool = next((tool for tool in (3, 4) if monitoring.get_tool(tool) in (None, _TOOL)), None)
        if main is None or tool is None or monitoring.get_tool(tool) == _TOOL:
            return
        code = main.f_code

        def left(what: Any, offset: int, error: BaseException) -> None:
            if what is code and isinstance(error, SystemExit):
                _codes.append(error.code)

        monitoring.use_tool_id(tool, _TOOL)
        monitoring.register_callback(tool, monitoring.events.PY_UNWIND, left)
        monitoring.set_events(tool, monitoring.events.PY_UNWIND)


def _main_module() -> FrameType | None:
    """Return the frame of the script, the outermost one: notebook cells and debugger lines run in frames within it."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    found = None
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == _MAIN:
            found = frame
        frame = frame.f_back
    return found


class _WatchedExit(SystemExit):
    """A SystemExit that notices when the interpreter reads its code, which it does to end the process."""

    @property
    def code(self) -> Any:  # type: ignore[override]
        """The code, as in SystemExit."""
        given = self.args[0] if len(self.args) == 1 else (self.args or None)
        # Code that catches the exit reads the code from a frame. The interpreter reads it when no frame is left.
        if sys._getframe().f_back is None:
            _codes.append(given)
        return given


_WatchedExit.__name__ = _WatchedExit.__qualname__ = "SystemExit"


class _Exiting:
    """A replacement for `sys.exit`, `exit` or `quit` that behaves as they do."""

    def __init__(self, original: Callable[..., NoReturn]) -> None:
        self._original = original

    def __repr__(self) -> str:
        return repr(self._original)

    def __call__(self, *given: Any, **named: Any) -> NoReturn:
        if threading.current_thread() is not threading.main_thread():
            # In another thread, the exit ends that thread only.
            self._original(*given, **named)
        try:
            self._original(*given, **named)
        except SystemExit as error:
            raise _WatchedExit(*error.args) from None


if sys.version_info < (3, 12):
    for _place, _name in ((sys, "exit"), (builtins, "exit"), (builtins, "quit")):
        if hasattr(_place, _name):
            setattr(_place, _name, _Exiting(getattr(_place, _name)))
