"""What a flow run is known by: its function, its parameters, and the flow that called it."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic.fields import FieldInfo

from ivcap_flows.capture.calls import Held, digest_values
from ivcap_flows.capture.prefect_context import root_of
from ivcap_flows.capture.run_identity import Project, parameters_sha256
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.identity import path_text, utf8_safe
from ivcap_flows.secrets import scrub, scrub_text

if TYPE_CHECKING:
    from ivcap_flows.journal import OpenedAttempt, RunIdentity

__all__ = ["Parameters", "identity_of", "scan_parameters", "source_of"]


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

    `outer` is the attempt of the flow that called it.
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
