"""`ivcap-flows rerun RUN`: run a flow again with the same inputs and parameters, and compare the results."""

from __future__ import annotations

import importlib
import inspect
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from types import ModuleType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Union, get_args, get_origin

from cyclopts import Parameter

from ivcap_flows.capture import files
from ivcap_flows.cli.diff import difference, in_json, print_difference
from ivcap_flows.cli.entry_point import call, environment, value_of
from ivcap_flows.cli.output import Json, complain, emit
from ivcap_flows.cli.records import RunName, open_journal
from ivcap_flows.errors import InputError, IvcapFlowsError
from ivcap_flows.handles import Handle, LocalFile
from ivcap_flows.identity import path_of
from ivcap_flows.journal import Journal, RunRow
from ivcap_flows.journal.processes import is_this
from ivcap_flows.provenance import Graph
from ivcap_flows.secrets import HIDDEN, hide
from ivcap_flows.sinks import run_graph

if TYPE_CHECKING:
    from ivcap_flows.reading.inputs import Inputs

__all__ = ["rerun"]

_NOT_RECORDED: Final = "a secret, which is never recorded"
_SHORTENED: Final = (" characters)", " items")


def rerun(
    run: RunName,
    /,
    *,
    pay: bool = False,
    secrets: Annotated[list[str] | None, Parameter(name="--set")] = None,
    as_json: Json = False,
) -> int:
    """Repeat a run on record, then compare the two runs. Exit status 1 if the flow fails or the results differ.

    The same code file runs with the same parameters, in this process and as a new run. Its inputs must be unchanged.
    Orders and jobs of the earlier run are reused instead of paid for again. The flow writes to the same places as
    before; what it prints goes to standard error.

    Args:
        pay: Place all orders and jobs anew, also those that the flow would reuse or share with other runs.
        secrets: `name=value` for each parameter that was a secret or contained one, and so is not on record.
    """
    from ivcap_flows.reading.inputs import inputs_of

    with open_journal() as journal:
        before = journal.runs.get(run)
        inputs = inputs_of(journal, before)
        _check_inputs(inputs, journal, before)
        _check_folder(inputs, before)
        entry = _flow_of(before)
        parameters = _parameters(entry, before, run_graph(journal, before.id), _given(entry, before, secrets or []))
        since = journal.now()
        error = _run(entry, parameters, pay=pay)
        after = _made(journal, before, since)
        if after is None and isinstance(error, IvcapFlowsError):
            raise error
        if after is None:
            why = f": {type(error).__name__}: {error}" if error is not None else "."
            raise InputError(f"The flow {before.flow_name} did not start, or left no record{why}") from error
        found = difference(journal, before, after)
    if as_json:
        emit(in_json(before, after, found))
    else:
        print_difference(before, after, found)
    if error is not None:
        complain(error)
    return int(error is not None or not found.same_results)


def _check_inputs(inputs: Inputs, journal: Journal, run: RunRow) -> None:
    """Raise InputError if an input file or folder has changed."""
    from ivcap_flows.reading.verification import digest_of

    for found in inputs.read:
        given = f", given as `{found.role}`," if found.role else ""
        name = f"The input {found.path}{given} of run {run.id}"
        try:
            now = digest_of(found.path)
        except InputError as error:
            hosts = {attempt.process.host for attempt in journal.runs.attempts(run.id)} - {socket.gethostname()}
            where = f" The run was on the machine {', '.join(sorted(hosts))}." if hosts else ""
            raise InputError(f"{name} cannot be read: {error}{where}") from error
        if now != found.digest:
            what = "sha256" if found.type == "file" else "manifest"
            raise InputError(
                f"{name} had the {what} {found.digest} and now has {now}. Restore it; `ivcap-flows trace "
                f"{found.digest} --down` lists things with this content.",
                path=found.path,
            )


def _check_folder(inputs: Inputs, run: RunRow) -> None:
    """Raise InputError if a relative path among the parameters names another file from the current folder."""
    for name, value in run.parameters.items():
        for text in _texts(value):
            if not text or os.path.isabs(text):
                continue
            end = os.sep.join(["", *(part for part in Path(os.path.normpath(text)).parts if part != os.pardir)])
            paths = inputs.given.get(name, set())
            was = next((path for path in sorted(paths) if path.endswith(end)), None)
            if was is not None and os.path.abspath(text) not in paths:
                raise InputError(
                    f"The run {run.id} was given {text} as `{name}`. That was {was} then, and is "
                    f"{os.path.abspath(text)} from here. Repeat this command in the folder in which the run started."
                )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _flow_of(run: RunRow) -> Any:
    """Load the flow of a run from the file that it was in. Raise InputError if that is not possible."""
    from prefect import Flow
    from prefect.flows import load_flow_from_entrypoint

    path, _, name = path_of(run.entry_point).rpartition(":")
    if not name or "<locals>" in name:
        what = f"the function {name}, which is inside another function" if name else "a program, not a flow"
        raise InputError(f"The run {run.id} was of {what}, so it cannot be repeated.")
    if not Path(path).is_file():
        raise InputError(
            f"The code of run {run.id} cannot be found: {path} is not there. `ivcap-flows trace {run.id}` names its "
            "commit; check that out to the same path."
        )
    module, root = _module_of(Path(path))
    # Another checkout, such as the current folder, may hold a package of the same name.
    sys.path[:0] = [str(root), os.getcwd()]
    try:
        found: Any
        if module is None:
            found = load_flow_from_entrypoint(f"{path}:{name}")
        else:
            loaded = importlib.import_module(module)
            _check_place(loaded, Path(path))
            found = getattr(loaded, name)
    except Exception as error:
        raise InputError(f"The code of run {run.id} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, Flow):
        raise InputError(f"{run.entry_point} is not a flow any more.")
    return found


def _check_place(loaded: ModuleType, path: Path) -> None:
    """Raise ImportError if the module was loaded from another file than the run's."""
    place = loaded.__file__
    if place is None or not path.samefile(place):
        raise ImportError(
            f"{loaded.__name__} is {place} here, not {path}. Repeat this command in the folder of that code, with "
            "nothing else in PYTHONPATH."
        )


def _module_of(path: Path) -> tuple[str | None, Path]:
    """Return the module name of a file in a package (None outside of one), and the folder to import it from."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return (".".join(parts) if len(parts) > 1 else None), root


def _given(entry: Any, run: RunRow, secrets: list[str]) -> dict[str, Any]:
    """Parse the values of secret parameters. One that was a text is given as it is.

    Raise InputError for a parameter that was not a secret.
    """
    given: dict[str, Any] = {}
    for each in secrets:
        name, equals, value = each.partition("=")
        if not equals or _NOT_RECORDED not in set(_lost(run.parameters.get(name))):
            hidden = [known for known, shown in run.parameters.items() if _NOT_RECORDED in set(_lost(shown))]
            raise InputError(
                f"`{name}` is not a secret parameter of run {run.id}. Those are: {', '.join(hidden) or 'none'}."
            )
        hide(value)
        was_text = isinstance(run.parameters[name], str)
        given[name] = value if was_text else value_of(entry, name, value)
        if not was_text and isinstance(given[name], str):
            raise InputError(f"`--set {name}=…` needs YAML or JSON, since {name} was not a text.")
    return given


def _parameters(entry: Any, run: RunRow, graph: Graph, secrets: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a run as the flow takes them. Raise InputError if some are not on record."""
    recorded = {name: value for name, value in run.parameters.items() if name not in secrets}
    lost = sorted({f"{name} ({why})" for name, value in recorded.items() for why in _lost(value)})
    if lost:
        step = " Give the secrets with `--set name=value`." if any(_NOT_RECORDED in each for each in lost) else ""
        raise InputError(f"These parameters of run {run.id} are not on record: {', '.join(lost)}.{step}")
    try:
        hints = inspect.signature(entry.fn, eval_str=True).parameters
    except (NameError, TypeError, ValueError):
        hints = inspect.signature(entry.fn).parameters
    given = {
        name: _value(hints[name].annotation if name in hints else None, value, graph)
        for name, value in recorded.items()
    } | dict(secrets)
    variadic = [name for name in given if name == "*"]
    if variadic:
        raise InputError(f"The run {run.id} was given positional arguments (`*args`), which cannot be given again.")
    return given


def _lost(value: Any) -> Iterator[str]:
    """Yield the reasons why a recorded value is not the complete value that was given."""
    if isinstance(value, str):
        if HIDDEN in value:
            yield _NOT_RECORDED
        elif "… (" in value and value.endswith(_SHORTENED[0]):
            yield "a text that is recorded in part"
        elif value.startswith("… ") and value.endswith(_SHORTENED[1]):
            yield "a list that is recorded in part"
    elif isinstance(value, Mapping):
        if "block" in value and set(value) <= {"block", "name"}:
            if not value.get("name"):
                yield "a block that was not saved"
        elif isinstance(value.get("type"), str) and _in_memory(value):
            yield f"a {value['type']}, which was in memory only"
        else:
            yield from (why for inner in value.values() for why in _lost(inner))
    elif isinstance(value, list):
        yield from (why for inner in value for why in _lost(inner))


def _in_memory(value: Mapping[str, Any]) -> bool:
    """Return whether this stands for a value of which only the digest was recorded, or nothing."""
    if value.keys() == {"type", "unhashed"}:
        return True
    return value.keys() == {"type", "content"} and str(value["content"]).startswith("urn:ivcap-flows:")


def _value(hint: Any, value: Any, graph: Graph) -> Any:
    """Convert a value that was recorded by name to what the flow takes: a saved block, a handle or a file.

    Unions, lists and mappings of these are converted as well.
    """
    if isinstance(value, Mapping) and set(value) == {"block", "name"}:
        return _block(str(value["block"]), str(value["name"]))
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _value(inner[0], value, graph)
    if origin in (Union, UnionType):
        type_ = graph.nodes[value].type if isinstance(value, str) and value in graph.nodes else None
        kinds = sorted(inner, key=lambda kind: (_kind(kind) != type_, kind is LocalFile))
        return next((made for kind in kinds if (made := _value(kind, value, graph)) != value), value)
    if isinstance(value, list) and inner:
        each = inner if len(inner) == len(value) and Ellipsis not in inner else (inner[0],) * len(value)
        return [_value(kind, item, graph) for kind, item in zip(each, value, strict=True)]
    if isinstance(value, Mapping) and len(inner) == 2:
        return {name: _value(inner[1], item, graph) for name, item in value.items()}
    if not isinstance(value, str) or not inspect.isclass(hint):
        return value
    if issubclass(hint, LocalFile):
        return files.file_at(value, None)
    node = graph.nodes.get(value)
    if not issubclass(hint, Handle) or node is None:
        return value
    plan = next((link.target for link in graph.links_from(value, "hadPlan")), None)
    about = {"urn": value, "created_at": node.time, "service": plan, **node.attributes}
    try:
        return hint.model_validate({name: known for name, known in about.items() if known is not None})
    except ValueError as error:
        raise InputError(f"Only the name of {value} is on record, so it cannot be given again: {error}") from error


def _kind(hint: Any) -> str | None:
    """Return the type of record that a class of handles stands for, or None."""
    named = hint.model_fields.get("kind") if inspect.isclass(hint) and issubclass(hint, Handle) else None
    return None if named is None else named.default


def _block(kind: str, name: str) -> Any:
    from prefect.blocks.core import Block

    kinds = [Block]
    for known in kinds:
        kinds += [each for each in known.__subclasses__() if each not in kinds]
    for known in kinds:
        if known.__name__ == kind:
            try:
                return known.load(name)
            except ValueError as error:
                raise InputError(f"There is no block {kind} named {name!r} any more.") from error
    raise InputError(f"The block {name!r} is of the type {kind}, which the flow's code does not import.")


def _run(entry: Any, parameters: dict[str, Any], *, pay: bool) -> Exception | None:
    """Run the flow as a new run, and return the error that ended it, if any."""
    how = {"IVCAP_FLOWS_FRESH": "1", "IVCAP_FLOWS_REUSE": "1", "IVCAP_FLOWS_PAY_AGAIN": "1" if pay else "0"}
    with environment(**how), redirect_stdout(sys.stderr):
        try:
            call(entry, parameters)
        except Exception as error:  # noqa: BLE001 - the flow's own
            return error
    return None


def _made(journal: Journal, before: RunRow, since: datetime) -> RunRow | None:
    """Return the run of the same code that this process began since then, or None."""
    for run in journal.runs.recent(100, flow_name=before.flow_name):
        if run.entry_point == before.entry_point and any(
            is_this(attempt.process) and attempt.started_at >= since for attempt in journal.runs.attempts(run.id)
        ):
            return run
    return None
