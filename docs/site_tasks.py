"""Show the tasks in the site's API reference: griffe, which reads the code without running it, sees no tuple targets.

    place_order, aplace_order = task_pair(_place_order, name="Place order")

makes `place_order` with the signature and docstring of `_place_order`, and `aplace_order`, which refers to it.
"""

from __future__ import annotations

import ast
from typing import Any

import griffe


class TaskPairs(griffe.Extension):
    """Adds both tasks of each `task_pair`."""

    def on_module_members(self, *, node: Any, mod: griffe.Module, **_: Any) -> None:
        for statement in getattr(node, "body", ()):
            match statement:
                case ast.Assign(
                    targets=[ast.Tuple(elts=[ast.Name(id=verb), ast.Name(id=averb)])],
                    value=ast.Call(func=ast.Name(id="task_pair"), args=[ast.Name(id=body), *_]),
                ):
                    told = mod.members[body].docstring
                    assert told is not None, f"{mod.path}.{body} has no docstring"
                    mod.set_member(verb, _task(mod.members[body], verb, told.value))
                    also = f"Like [`{verb}`][{mod.path}.{verb}], for asynchronous flows."
                    mod.set_member(averb, _task(mod.members[body], averb, also))


def _task(body: Any, name: str, told: str) -> griffe.Function:
    task = griffe.Function(
        name,
        lineno=body.lineno,
        endlineno=body.endlineno,
        parameters=body.parameters,
        returns=body.returns,
        docstring=griffe.Docstring(told, lineno=body.docstring.lineno),
    )
    task.docstring.parent = task
    task.labels.add("task")
    return task
