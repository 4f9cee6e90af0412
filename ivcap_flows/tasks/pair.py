"""Make two Prefect tasks from one asynchronous body: `verb` for synchronous flows, `averb` for asynchronous ones.

Both run the body on the package's loop, so neither blocks the caller's. They are two separate tasks, because with
Prefect's own dispatching decorator `.submit`, `.map` and `.with_options` do not work.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

from prefect.cache_policies import NO_CACHE
from prefect.tasks import Task
from pydantic import SecretStr

from ivcap_flows import __version__, loop
from ivcap_flows.arguments import several, texts
from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture import recorded
from ivcap_flows.capture.prefect_context import flow_context
from ivcap_flows.errors import InputError, IvcapFlowsError
from ivcap_flows.handles import Handle
from ivcap_flows.identity import is_utf8
from ivcap_flows.secrets import logger_of, scrub, scrub_text
from ivcap_flows.tasks.missing import noticing
from ivcap_flows.tasks.service_request import ServiceRequest

__all__ = ["asynchronous_name", "called", "refuse_in_asynchronous_flow", "task_pair"]

logger = logger_of("ivcap_flows.tasks")

_PATHS: Final = ("Path", "SourceLike", "TermsLike")
_SEVERAL: Final = ("Sequence[", "Collection[", "Iterable[", "list[", "tuple[")
"""How the type of a parameter begins that takes several values, and not one of them alone."""
_BYTES: Final = re.compile("[\udc80-\udcff]")
_CREDENTIALS: Final = {"ivcap": "IvcapCredentialsLike", "provena": "ProvenaCredentialsLike"}

P = ParamSpec("P")
R = TypeVar("R")


def task_pair(
    body: Callable[P, Coroutine[Any, Any, R]],
    run_name: str | Callable[[dict[str, Any]], str] | None = None,
    *,
    writes: tuple[str, ...] = (),
    persist: bool | None = None,
) -> tuple[Task[P, R], Task[P, Coroutine[Any, Any, R]]]:
    """Return the tasks (verb, averb) of a body `_verb`. Both have its signature and docstring.

    The verb in words is the task's name in Prefect, and the name of its runs without a `run_name`: a template over the
    arguments, or a function that makes the name from them. `writes` lists the parameters that are no inputs: the task
    only writes to the files, collections and so on that they name, or states something about them, or their paths are
    not of this machine. `persist` says whether Prefect stores results; None leaves it to Prefect's settings. The tasks
    have the tags `ivcap` and `provena`, by the credentials that they take. They neither retry nor cache: requests that
    are safe to repeat are repeated inside the task, and a cached task would record nothing.
    """
    verb = body.__name__.removeprefix("_")
    words = verb.replace("_", " ")
    check, body = _checker(body), noticing(body)

    @functools.wraps(body)
    def synchronous(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            refuse_in_asynchronous_flow(verb)
            check(*args, **kwargs)
            return loop.run(body(*args, **kwargs))
        except IvcapFlowsError as error:
            raise _short(error) from None

    @functools.wraps(body)
    async def asynchronous(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            check(*args, **kwargs)
            return await loop.arun(body(*args, **kwargs))
        except IvcapFlowsError as error:
            raise _short(error) from None

    synchronous.__name__ = synchronous.__qualname__ = verb
    asynchronous.__name__ = asynchronous.__qualname__ = asynchronous_name(verb)
    options: dict[str, Any] = {
        "name": words.capitalize(),
        "tags": _platforms(body),
        # The version distinguishes its runs from those of a user's task with the same name.
        "version": f"ivcap-flows {__version__}",
        "task_run_name": _naming(run_name or words, words),
        "retries": 0,
        "cache_policy": NO_CACHE,
        "persist_result": persist,
    }
    record = recorded(writes=writes)
    return Task(record(synchronous), **options), Task(record(asynchronous), **options)


def refuse_in_asynchronous_flow(verb: str) -> None:
    """Raise InputError if the task would block the loop of an asynchronous flow, whose result cannot be awaited.

    In a thread of the flow, as by `.submit`, there is no loop. In a notebook there is, under synchronous flows, too.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    context = flow_context()
    if context is not None and context.flow is not None and context.flow.isasync:
        raise InputError(f"An asynchronous flow awaits `a{verb}`: `{verb}` would block it. Nothing was requested.")


def _platforms(body: Callable[..., Any]) -> list[str]:
    """Return the platforms whose credentials a body takes: tags by which Prefect limits how many tasks run at once."""
    taken = {str(annotation) for annotation in body.__annotations__.values()}
    return [platform for platform, kind in _CREDENTIALS.items() if kind in taken]


def _checker(body: Callable[P, Any]) -> Callable[P, None]:
    """Return a function that raises InputError for a text or a path among the arguments that nothing can hold, and for
    one value alone in the place of several.

    A path may have bytes that are no UTF-8, which Python decodes as U+DC80 to U+DCFF. Parameters with a type of paths
    are paths, all others are texts. What is in a request is checked with the request.
    """
    signature = inspect.signature(body)
    kinds = {name: str(kind) for name, kind in body.__annotations__.items()}
    paths = {name for name, kind in kinds.items() if any(each in kind for each in _PATHS)}
    verb = body.__name__.removeprefix("_")

    def check(*args: P.args, **kwargs: P.kwargs) -> None:
        given = signature.bind_partial(*args, **kwargs).arguments
        for name, value in given.items():
            for text in _texts(value):
                if name not in paths:
                    canonical_form(text, name)
                elif "\0" in text or not is_utf8(_BYTES.sub("", text)):
                    raise InputError(f"`{name}` is a path with a NUL or half a surrogate pair, which no file can have.")
        for name, value in given.items():
            if kinds.get(name, "").startswith("Sequence[str]"):
                texts(value, name, verb)
            elif kinds.get(name, "").startswith(_SEVERAL):
                several(value, name, verb)

    return check


def _texts(value: Any) -> list[str]:
    """Return the texts that an argument consists of."""
    if isinstance(value, str | os.PathLike):
        return [os.fsdecode(value)]
    if isinstance(value, SecretStr):
        return [value.get_secret_value()]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list | tuple | set) else []


def _short(error: IvcapFlowsError) -> IvcapFlowsError:
    """Return the error without its traceback and without secrets. The traceback is logged at DEBUG.

    Prefect would show a hundred lines of traceback twice, and the message already names the thing and the next step.
    Other exceptions are bugs and keep their traceback.
    """
    logger.debug("The traceback of %s:", type(error).__name__, exc_info=error)
    return _without_secrets(error).with_traceback(None)


def _without_secrets(error: IvcapFlowsError) -> IvcapFlowsError:
    """Remove secrets from the error's message and data, which a user may print, log and store."""
    error.message = scrub_text(error.message)
    error.args = (error.message,)
    error.data = {name: scrub(value) for name, value in error.data.items()}
    return error


def _naming(run_name: str | Callable[[dict[str, Any]], str], task: str) -> Callable[..., str]:
    def name(parameters: dict[str, Any]) -> str:  # Prefect passes the argument by this name
        try:
            if not isinstance(run_name, str):
                return scrub_text(run_name(parameters))
            return scrub_text(run_name.format(**{each: called(value) for each, value in parameters.items()}))
        except (AttributeError, TypeError):
            # An argument of a wrong type: the body says what is wrong with it.
            return task

    return name


def asynchronous_name(verb: str) -> str:
    """Return the name of a verb's asynchronous form."""
    # `await_for_orders` would read as the keyword.
    return f"a_{verb}" if verb.startswith("wait") else f"a{verb}"


def called(value: Any) -> Any:
    """Return the name of what a handle stands for, or of the service of a request, if it has one.

    People know things by their names.
    """
    if isinstance(value, ServiceRequest):
        return value.service
    names = (getattr(value, name, None) for name in ("name", "display_name")) if isinstance(value, Handle) else ()
    return next(filter(None, names), value)
