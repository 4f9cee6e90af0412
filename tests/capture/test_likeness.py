"""Decorators change no number: what Prefect reads of a function is the function's own, and so is what its runs give."""

import functools
import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import prefect
import pytest
from prefect.cache_policies import TASK_SOURCE
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.tasks import task_input_hash
from prefect.utilities.hashing import hash_objects

from ivcap_flows import flow, recorded, task
from ivcap_flows.capture.wrapping import followed

PREFECTS, OURS = (f"from {module} import flow, task  # isort: split" for module in ("prefect", "ivcap_flows"))
IMPORTS = (
    "from pathlib import Path",
    "from typing import Any",
    "from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_LOCAL_STORAGE_PATH, temporary_settings",
)
SCRIPT = Path(__file__).parent / "ordinary" / "script_of_prefect.py"


def said(text: str, folder: Path) -> list[str]:
    """What a script says, with its source text and without, in a folder that also keeps its results."""
    folder.mkdir()
    file = folder / "script.py"
    file.write_text(text)
    lines: list[str] = []
    for name in (str(file), "<stdin>"):
        names: dict[str, Any] = {"__name__": "__main__"}
        storage = {PREFECT_LOCAL_STORAGE_PATH: folder / name.strip("/<>")}
        with temporary_settings({**storage, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            exec(compile(text, name, "exec"), names)
        lines += map(str, names["said"])
    return lines


@pytest.mark.long
@pytest.mark.usefixtures("prefect_api")
@pytest.mark.catches("tasks share their bytecode")
def test_a_script_says_the_same_with_prefects_decorators_and_with_ours(tmp_path, prefect_server):
    """A hundred lines of ordinary use, in a process that knows nothing of us. Without source text, Prefect tells cached
    results apart by the bytecode.
    """
    text = SCRIPT.read_text()
    assert text.count(PREFECTS) == 1
    program = "\n".join((*IMPORTS, inspect.getsource(said), f"print(*said({text!r}, Path('plain')), sep='\\n')"))
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, env=prefect_server, stdout=subprocess.PIPE, text=True) as plain:
        ours = said(text.replace(PREFECTS, OURS), tmp_path / "ours")
        assert plain.stdout is not None
        assert ours == plain.stdout.read().splitlines()
    assert len(ours) > 50


WITHOUT_SOURCE: dict[str, Any] = {}
exec(
    compile(
        """
def mean(xs): return sum(xs) / len(xs)
def largest(xs): return max(xs)
async def mean_later(xs): return sum(xs) / len(xs)
async def largest_later(xs): return max(xs)
def each(xs): yield from xs
def twice(xs):
    for x in xs: yield x; yield x
async def each_later(xs):
    for x in xs: yield x
async def twice_later(xs):
    for x in xs: yield x; yield x
first, last = (lambda xs: xs[0]), (lambda xs: xs[-1] + 0)
""",
        "<stdin>",
        "exec",
    ),
    WITHOUT_SOURCE,
)
PAIRS = [("mean", "largest"), ("mean_later", "largest_later"), ("each", "twice"), ("each_later", "twice_later")]
MADE = {
    "ours": task,
    "recorded": lambda function: prefect.task(recorded(function)),
    "observed": lambda function: prefect.task(followed(function, lambda *_: None)),
    "with options": lambda function: task(function).with_options(name="x", retries=2),
    "pickled": lambda function: cloudpickle.loads(cloudpickle.dumps(task(function))),
    "of a flow": lambda function: task(flow(function, name="x")),
    "of a task": lambda function: task(task(function, name="x")),
}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("pair", [*PAIRS, ("first", "last")], ids=lambda pair: pair[0])
@pytest.mark.catches("tasks share their bytecode")
def test_two_tasks_without_source_text_have_no_key_in_common(pair, made):
    """Neither their own nor their results', also where Prefect hashes the code without its place, as 3.9 does."""
    ones = [MADE[made](WITHOUT_SOURCE[name]) for name in pair]
    assert [each.source_code for each in ones] == [None, None]
    contexts: list[Any] = [SimpleNamespace(task=each) for each in ones]
    places = {"co_filename": "", "co_firstlineno": 1, "co_linetable": b""}
    keys = {
        "task": [each.task_key for each in ones],
        "source": [TASK_SOURCE.compute_key(each, None, None) for each in contexts],
        "inputs": [task_input_hash(each, {}) for each in contexts],
        "bytecode": [each.fn.__code__.co_code for each in ones],
        "code": [hash_objects(each.fn.__code__.replace(**places)) for each in ones],
    }
    assert {name: len(set(each)) for name, each in keys.items()} == dict.fromkeys(keys, 2)


class Scale:
    """Scale."""

    def scaled(self, x: int) -> int:
        return x

    def __call__(self, x: int) -> int:
        return x


def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


async def add_later(a: int, *, b: int = 1) -> int:
    return a + b


def each_of(*a: int):
    yield from a


async def each_later(a: int, **b: int):
    yield a


FUNCTIONS: dict[str, Any] = {
    "function": add,
    "asynchronous": add_later,
    "generator": each_of,
    "asynchronous generator": each_later,
    "lambda": lambda x: x,
    "wrapped": functools.wraps(add)(lambda *given: add(*given)),
    "method": Scale().scaled,
    "static method": staticmethod(add),
    "class method": classmethod(Scale.scaled),
    "flow": prefect.flow(add),
    "generator flow": prefect.flow(each_of),
    "task": prefect.task(add),
    "object": Scale(),
    "partial": functools.partial(add, 1),
    "asynchronous partial": functools.partial(add_later, b=2),
    "no function": 3,
}
NOT_OF_FLOWS = ("flow", "generator flow", "task")
"""A flow may be a flow only in a module that is imported. With ours it always may be."""


def read(decorate: Any, function: Any) -> dict[str, Any]:
    """What Prefect reads of a function, or how it refuses it."""
    try:
        made = decorate(function)
    except Exception as error:
        return {"refused": (type(error), str(error).replace("functools.", ""))}
    names = ("name", "description", "source_code", "version", "_entrypoint", "isasync", "isgenerator", "parameters")
    names += ("__module__", "__name__", "__qualname__", "__doc__")
    signature = str(inspect.signature(made))
    # An object has no code that would be hashed.
    own = not hasattr(function, "__qualname__")
    return {"signature": signature, "key": own and made.task_key, **{name: getattr(made, name, None) for name in names}}


@pytest.mark.parametrize(
    ("kind", "function"),
    [("task", each) for each in FUNCTIONS] + [("flow", each) for each in FUNCTIONS if each not in NOT_OF_FLOWS],
)
def test_prefect_reads_of_a_function_what_it_would_read_without_us(kind, function):
    """Whatever Prefect's decorators take, ours take, and what they refuse is refused with the same words."""
    plain, ours = {"task": (prefect.task, task), "flow": (prefect.flow, flow)}[kind]
    assert read(ours, FUNCTIONS[function]) == read(plain, FUNCTIONS[function])
