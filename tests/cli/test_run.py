"""`ivcap-flows run`: a flow as the command line's user has it."""

import uuid

import pytest

from ivcap_flows.capture import journal, use_journal
from ivcap_flows.journal import Journal

TEXT = '''
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect import states
from prefect.states import Completed

from ivcap_flows import recorded
from ivcap_flows.settings import Settings

@flow
@recorded
def told(
    month: str, times: int = 1, base: tuple[int, int] = (1981, 2010), until: str | None = None, fails: bool = False
):
    """Tell of a month.

    Says it as often as it is asked to.

    Args:
        month: The month, such as 1997-03.
        times: How often to tell.
    """
    if fails:
        raise ValueError("of its own")
    print([month, times, base, until, Settings.current().fresh])

@flow
def chosen(method: Literal["mean", "median"], base: tuple[int, int], times: int = 1, *rest: int, **others: int):
    pass

@flow
async def same():
    """Find nothing new."""
    return Completed(name="Unchanged", message="all as it was")

@flow
def stopped():
    raise KeyboardInterrupt

@flow
@recorded
def counted(to: int):
    for number in range(to):
        print(number)
        yield number
    if to > 2:
        raise ValueError("too many")

@flow
@recorded
async def counted_later(to: int):
    for number in counted(to):
        yield number

@flow
def ended_as(kind: str):
    return getattr(states, kind)(message="as it was told")
'''


@pytest.fixture
def run(ivcap_flows, prefect_api, without_logs, journal_file, tmp_path, monkeypatch):
    """`run("told", …)` runs a flow of a module in the working directory."""
    name = f"told_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    with Journal.open(f"sqlite:///{journal_file}") as opened, use_journal(opened):
        yield lambda flow, *options: ivcap_flows("run", f"{name}:{flow}", *options)


def test_parameters_are_read_as_the_flow_takes_them(run):
    """A text is a text whatever it looks like. `--fresh` is for this run alone."""
    for options, given, said in (
        (["--fresh"], ["month=null", "until=null"], ["null", 1, (1981, 2010), None, True]),
        ([], ["month=a=b", "times=2", "base=[1951, 1980]", "until=7"], ["a=b", 2, (1951, 1980), "7", False]),
    ):
        ended = run("told", *options, *(word for each in given for word in ("-p", each)))
        assert (ended.status, ended.out) == (0, f"{said}\n")


def test_each_missing_parameter_is_named_with_how_it_is_written(run):
    """Without Prefect's words on Python's signatures, whatever else is given."""
    said = run("chosen", "-p", "times=2")
    assert (said.status, said.out) == (2, "")
    assert said.err == (
        "InputError: The flow chosen needs a value of method, base, which is written like this: "
        "-p method=mean -p 'base=[10, 10]'\n"
    )


def test_the_docstring_of_the_flow_is_its_help(run):
    """With its parameters, how each is written, their defaults, and what is said of them; nothing runs."""
    said = run("told", "--help")
    assert said.status == 0 and said.out.startswith("Tell of a month.\n\nSays it as often as it is asked to.\n\n")
    rows = [line.split() for line in said.out.splitlines()]
    assert ["month", "text", "The", "month,", "such", "as", "1997-03."] in rows
    assert ["times", "10", "1", "How", "often", "to", "tell."] in rows
    chosen = [line.split() for line in run("chosen", "--help").out.splitlines()]
    assert ["method", "mean", "or", "median"] in chosen and ["base", "[10,", "10]"] in chosen
    assert "Args:" not in said.out


ENDS = {
    "another name of an end, of an asynchronous flow": ("same", 0, "Unchanged: all as it was\n", ""),
    "an error, in one line": ("told -p month=1 -p fails=true", 1, "", "ValueError: of its own\n"),
    "Ctrl-C, as a shell expects it": ("stopped", 130, "", ""),
    **{
        f"the state {kind}": (f"ended_as -p kind={kind}", 1, "", "as it was told\n")
        for kind in ("Failed", "Cancelled", "Crashed", "Paused")
    },
}
"""What is run; the status, the output, and the end of the error."""


@pytest.mark.parametrize("end", ENDS)
def test_an_end_is_named_and_sets_the_status(run, end):
    """However it came about."""
    words, status, out, err = ENDS[end]
    said = run(*words.split())
    assert (said.status, said.out) == (status, out) and said.err.endswith(err) and bool(said.err) == bool(err)


def test_without_a_flow_the_command_says_what_it_takes(ivcap_flows, transcript):
    transcript(ivcap_flows, "$ run\n… path/to/file.py:flow…\n[2]")


@pytest.mark.parametrize("flow", ["counted", "counted_later"])
def test_a_flow_that_is_a_generator_runs_to_its_end(run, flow):
    """As Prefect's workers run it: each item is taken. What it raises is its end."""
    ended = run(flow, "-p", "to=2")
    assert (ended.status, ended.out) == (0, "0\n1\n")
    failed = run(flow, "-p", "to=3")
    assert (failed.status, failed.out, failed.err) == (1, "0\n1\n2\n", "ValueError: too many\n")
    assert [each.outcome for each in journal().runs.recent()] == ["failed", "completed"]
