"""What a flow run is known by: its function, its parameters, and the flow that called it. A background task run: by its
id."""

from __future__ import annotations

import inspect
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from pydantic.fields import FieldInfo

from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture.calls import Held, digest_values
from ivcap_flows.capture.prefect_context import root_of
from ivcap_flows.capture.stand_ins import StandIns
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.errors import InputError
from ivcap_flows.identity import canonical, digest, path_text, utf8_safe
from ivcap_flows.secrets import logger_of, scrub, scrub_alone, scrub_text

if TYPE_CHECKING:
    from ivcap_flows.journal import OpenedAttempt, RunIdentity

__all__ = [
    "Parameters",
    "Project",
    "identity_of",
    "identity_of_task",
    "parameters_sha256",
    "scan_parameters",
    "source_of",
]

log = logger_of("ivcap_flows.capture")

_INSTALLED: Final = ("site-packages", "dist-packages")


def source_of(function: Any) -> tuple[str | None, str]:
    """Return the file and the name of a function, through all its decorators."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    name = str(getattr(function, "__qualname__", "flow"))
    return (os.path.abspath(code.co_filename) if code is not None else None), name


@dataclass(frozen=True)
class Parameters:
    """The parameters of a flow: as they were `given`, as JSON to be `shown`, and the tables and arrays among them."""

    given: dict[str, Any]
    shown: dict[str, Any]
    held: list[Held]

    @property
    def contents(self) -> dict[int, str]:
        """The content names of the tables and arrays that were read, by `id()`."""
        return {id(each.value): each.content for _, each in self.held if each.content is not None}


def scan_parameters(given: dict[str, Any]) -> Parameters:
    """Return parameters as they are recorded. Tables and arrays in memory are named by their content."""
    look = ValueScan()
    shown = {name: look.named(name, name, value) for name, value in given.items()}
    return Parameters(given, shown, digest_values(look, None))


def identity_of(
    context: Any, parameters: Parameters, source: tuple[str | None, str], outer: OpenedAttempt | None
) -> RunIdentity:
    """Return the identity of the flow run in a Prefect context, by which an earlier run of the same is found.

    `outer` is the attempt of the flow or background task that called it.
    """
    from ivcap_flows.journal import RunIdentity

    flow_run, (path, name) = context.flow_run, source
    root = outer.attempt.root_flow_run_id if outer is not None else root_of(flow_run)
    project = Project.around(path)
    # Deployed runs and subflows are never continued by their parameters, so they need no warning about those.
    of = f"the flow {context.flow.name}" if flow_run.deployment_id is None and root == str(flow_run.id) else None
    return RunIdentity(
        flow_name=context.flow.name,
        entry_point=path_text(f"{path}:{name}"),
        code=project.code(path, name),
        parameters=utf8_safe(scrub(parameters.shown)),
        parameters_sha256=parameters_sha256(parameters.given, project, parameters.contents, of=of),
        given_sha256=_given_sha256(parameters, context.flow.fn, project) if of is not None else None,
        root_flow_run_id=root,
        flow_run_id=str(flow_run.id),
        flow_run_name=utf8_safe(scrub_text(str(flow_run.name))),
        deployed=flow_run.deployment_id is not None,
        deployment_id=str(flow_run.deployment_id) if flow_run.deployment_id is not None else None,
    )


def identity_of_task(task: Any, parameters: Parameters, source: tuple[str | None, str]) -> RunIdentity:
    """Return the identity of the background task run in a Prefect context. Only its id leads to an earlier attempt."""
    from ivcap_flows.journal import RunIdentity

    task_run, (path, name) = task.task_run, source
    project = Project.around(path)
    return RunIdentity(
        flow_name=task.task.name,
        entry_point=path_text(f"{path}:{name}"),
        code=project.code(path, name),
        parameters=utf8_safe(scrub(parameters.shown)),
        parameters_sha256=parameters_sha256(parameters.given, project, parameters.contents),
        root_flow_run_id=str(task_run.id),
        flow_run_id=str(task_run.id),
        flow_run_name=utf8_safe(scrub_text(str(task_run.name))),
        deployed=True,
    )


def _given_sha256(parameters: Parameters, function: Any, project: Project) -> str | None:
    """Return the digest of the parameters that are not left at their default, and None if all were given."""

    def is_default(name: str, value: Any, default: Any) -> bool:
        # Validation may have made an equal value of the default.
        found = parameters_sha256({name: value}, project, parameters.contents)
        return value is default or found == parameters_sha256({name: default}, project)

    given = dict(parameters.given)
    for name, each in inspect.signature(function).parameters.items():
        default = each.default.default if isinstance(each.default, FieldInfo) else each.default
        if name in given and default is not each.empty and is_default(name, given[name], default):
            del given[name]
    if len(given) == len(parameters.given):
        return None
    return parameters_sha256(given, project, parameters.contents)


@dataclass(frozen=True)
class Project:
    """The folder that code moves with. `root` is None for code outside of any project, or without a file."""

    root: str | None

    @classmethod
    def around(cls, file: str | None) -> Project:
        """Find the folder of installed code, else the nearest folder above with `.git`, else with `pyproject.toml`."""
        if file is None or not os.path.isfile(file):
            return cls(None)
        above = [str(folder) for folder in PurePath(file).parents]
        installed = (folder for folder in above if os.path.basename(folder) in _INSTALLED)
        marked = (f for mark in (".git", "pyproject.toml") for f in above if os.path.exists(os.path.join(f, mark)))
        return cls(next(installed, None) or next(marked, None))

    def code(self, file: str | None, name: str) -> str:
        """Identify the function `name` by its file's path in the project, or without a project by the file's name.

        Code without a file, as in an interactive session, is identified by the text that stands for its path.
        """
        if file is not None and os.path.isfile(file):
            file = self._inside(file) or os.path.basename(file)
        return str(utf8_safe(f"{file}:{name}"))

    def path(self, text: str) -> str:
        """Return the text. A path in the project, also one given to an option (`--in=/a/b`), becomes relative to it."""
        option, equals, path = text.partition("=") if text.startswith("-") else ("", "", text)
        inside = self._inside(path)
        return text if inside is None else f"{option}{equals}<project>/{inside}"

    def _inside(self, path: str) -> str | None:
        """Return a path in the project relative to its root, and None for any other path."""
        if self.root is not None and os.path.isabs(path):
            for root in (self.root, os.path.realpath(self.root)):
                inside = os.path.relpath(path, root) if path.startswith(root) else os.pardir
                if inside.partition(os.sep)[0] != os.pardir:
                    return PurePath(inside).as_posix()
        return None


def parameters_sha256(
    parameters: Mapping[str, Any], project: Project, contents: Mapping[int, str] | None = None, *, of: str | None = None
) -> str:
    """Return the digest that equal parameters share in any process, on any host, and in any checkout of the project.

    `contents` names the tables and arrays that were read, by `id()`. Parameters that cannot be compared are equal to
    none, not even to themselves, so no later run continues this one. A warning says so if `of` names what runs.
    """
    try:
        form = canonical_form(dict(parameters), "parameters", stand_in=StandIns(contents, project.path))
        return digest(canonical(scrub_alone(form)))
    except InputError as error:
        why = error.message
    except Exception as error:  # noqa: BLE001 - an error of a user's type must not stop the run
        why = f"its parameters cannot be compared ({type(error).__name__})."
    if of is not None:
        log.warning("If %s does not complete, the same command begins a new run instead of continuing it: %s", of, why)
    return f"unlike any: {uuid.uuid4()}"
