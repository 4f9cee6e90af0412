"""`ivcap-flows rerun RUN`: check the inputs of a run, and print the commands that repeat it and compare both runs."""

from __future__ import annotations

import shlex
import socket
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ivcap_flows.cli.output import Json, console, print_json
from ivcap_flows.cli.records import RunName, open_journal
from ivcap_flows.cli.written_values import parameter
from ivcap_flows.errors import InputError
from ivcap_flows.identity import flows_urn, path_of, short_run
from ivcap_flows.journal import RunRow
from ivcap_flows.journal.rows import AttemptRow
from ivcap_flows.provenance import Graph, Record
from ivcap_flows.reading.verification import LOCAL
from ivcap_flows.secrets import HIDDEN
from ivcap_flows.sinks import run_graph

__all__ = ["Input", "inputs_of", "rerun"]


def rerun(run: RunName, /, *, as_json: Json = False) -> int:
    """Check that the inputs of a run are unchanged, and print the command that repeats the run. It runs nothing.

    The command runs the same code file with the same parameters, as a new run that reuses the orders and jobs of the
    earlier one. `diff` then compares the two runs. Exit status 1 if an input has changed or is gone, if the code is not
    at its path, or if a parameter must be added.
    """
    with open_journal() as journal:
        found = journal.runs.get(run)
        graph = run_graph(journal, found.id)
        attempts = [attempt for attempt in journal.runs.attempts(found.id) if attempt.leads]
    repeat = _repeat(found, graph, attempts)
    if as_json:
        print_json(repeat)
    else:
        _print(repeat)
    return int(bool(repeat["problems"]))


def _repeat(run: RunRow, graph: Graph, attempts: Sequence[AttemptRow]) -> dict[str, Any]:
    """Return the commands that repeat a run and compare the two runs, and what speaks against it."""
    path, _, function = path_of(run.entry_point).rpartition(":")
    if not function or "<locals>" in function:
        what = f"the function {function}, which is inside another function" if function else "a program, not a flow"
        raise InputError(f"The run {run.id} was of {what}, so no command repeats it.")
    if run.is_background:
        again = f"Send it anew, by `{function}.delay(...)`, to a task worker that has IVCAP_FLOWS_REUSE=1"
        raise InputError(
            f"The run {run.id} was of the background task {run.flow_name}, which no command runs. {again}."
        )
    urns = [flows_urn("attempt", attempt.id) for attempt in attempts]
    # The last attempt's; a record with lost facts may lack it.
    folders = [graph.nodes[urn].attributes.get("folder") for urn in urns if urn in graph.nodes]
    folder = folders[-1] if folders else None
    environment = {"IVCAP_FLOWS_REUSE": "1"}
    module, root = _module_of(Path(path))
    if module is not None and str(root) != folder:
        environment["PYTHONPATH"] = str(root)
    handles = {link.target for link in graph.relations.values() if link.source in urns and link.attributes.get("role")}
    given, missing = [], []
    for name, value in run.parameters.items():
        reasons = ["positional arguments"] if name == "*" else sorted(set(_incomplete(value, handles)))
        if reasons:
            missing.append(f"{name} ({', '.join(reasons)})")
        else:
            given += ["-p", parameter(name, value)]
    problems = [*_code_problems(path, graph), *_input_problems(graph, {attempt.process.host for attempt in attempts})]
    if missing:
        problems.append(f"Add these parameters, which are not on record for a command line: {'; '.join(missing)}.")
    return {
        "run": run.id,
        "problems": problems,
        "folder": folder,
        "environment": environment,
        "command": ["ivcap-flows", "run", f"{module or path}:{function}", "--fresh", *given],
        "compare": ["ivcap-flows", "diff", short_run(run.id), "latest"],
    }


def _print(repeat: Mapping[str, Any]) -> None:
    for problem in repeat["problems"]:
        console.print(problem, style="red")
    if not repeat["problems"]:
        console.print(f"The inputs of run {repeat['run']} are unchanged. To repeat it and compare the two runs:")
    if repeat["folder"]:
        console.print(shlex.join(["cd", repeat["folder"]]))
    variables = [f"{name}={shlex.quote(value)}" for name, value in repeat["environment"].items()]
    console.print(" ".join([*variables, shlex.join(repeat["command"])]))
    console.print(shlex.join(repeat["compare"]))


def _module_of(path: Path) -> tuple[str | None, Path]:
    """Return the module name of a file in a package (None outside of one), and the folder to import it from."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return (".".join(parts) if len(parts) > 1 else None), root


def _code_problems(path: str, graph: Graph) -> Iterator[str]:
    if not Path(path).is_file():
        committed = any(node.attributes.get("commit") for node in graph.nodes.values() if node.type == "code")
        step = "Its commit is on record; check it out to the same path" if committed else "Put it back"
        yield f"The code is gone: there is no file {path}. {step}."


def _input_problems(graph: Graph, hosts: Collection[str]) -> Iterator[str]:
    from ivcap_flows.reading.verification import digest_of

    others = sorted(set(hosts) - {socket.gethostname()})
    where = f" The run was on the machine {', '.join(others)}." if others else ""
    for each in inputs_of(graph):
        try:
            now = digest_of(each.path)
            trouble = (
                f"The input {each.path} has changed: its sha256 was {' or '.join(sorted(each.digests))} and is {now}."
            )
        except InputError as error:
            now, trouble = "", f"The input {error}{where}"
        if now not in each.digests:
            yield (
                f"{trouble} Restore it; `ivcap-flows trace {min(each.digests)} --down` lists things with the content "
                "of then."
            )


def _incomplete(value: Any, handles: Collection[str | None]) -> Iterator[str]:
    """Yield the reasons why a recorded parameter is not the value that was given."""
    if isinstance(value, str):
        if HIDDEN in value:
            yield "a secret, which is never recorded"
        elif "… (" in value and value.endswith(" characters)"):
            yield "a text that is recorded in part"
        elif value.startswith("… ") and value.endswith(" items"):
            yield "a list that is recorded in part"
        elif value in handles:
            yield f"a handle, of which the URN is recorded: {value}"
    elif isinstance(value, Mapping):
        if "block" in value and set(value) <= {"block", "name"}:
            yield f"a block: {value['block']} {value.get('name') or 'that was not saved'}"
        elif isinstance(value.get("type"), str) and _in_memory(value):
            yield f"a {value['type']}, which was in memory only"
        else:
            yield from (why for inner in value.values() for why in _incomplete(inner, handles))
    elif isinstance(value, list):
        yield from (why for inner in value for why in _incomplete(inner, handles))


def _in_memory(value: Mapping[str, Any]) -> bool:
    """Return whether this stands for a value of which only the digest was recorded, or nothing."""
    if value.keys() == {"type", "unhashed"}:
        return True
    return value.keys() == {"type", "content"} and str(value["content"]).startswith("urn:ivcap-flows:")


@dataclass(frozen=True)
class Input:
    """A file or folder that a run read. It has several digests if it was changed between two attempts."""

    path: str
    digests: frozenset[str]


def inputs_of(graph: Graph) -> list[Input]:
    """Return the files and folders that a run read, without those that it wrote, before or after.

    A folder that the run put something into, and a file in a folder that the run made, are not inputs.
    """
    links = graph.relations.values()
    read = _paths(graph, {link.target for link in links if link.type == "used"})
    written = _paths(graph, {link.source for link in links if link.type == "wasGeneratedBy"}).keys()
    new = written - read.keys()
    changed = {str(folder) for path in written for folder in PurePath(path).parents}
    inputs = []
    for path, versions in read.items():
        made = path in written or any(str(folder) in new for folder in PurePath(path).parents)
        digests = {_digest(version) for version in versions if version.type == "file" or path not in changed} - {None}
        if digests and not made:
            inputs.append(Input(path, frozenset(map(str, digests))))
    return inputs


def _paths(graph: Graph, ids: set[str | None]) -> dict[str, list[Record]]:
    """Return the files and folders among these, by path."""
    found: dict[str, list[Record]] = defaultdict(list)
    for node in graph.nodes.values():
        if node.id in ids and node.type in LOCAL and isinstance(node.attributes.get("path"), str):
            found[path_of(node.attributes["path"])].append(node)
    return found


def _digest(version: Record) -> str | None:
    digest = version.attributes.get("sha256" if version.type == "file" else "manifest_sha256")
    return digest if isinstance(digest, str) else None
