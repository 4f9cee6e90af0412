"""The tests that must fail on a broken build, and with `--mutants` a table of which catches which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

_OUTCOMES = {"passed": "caught", "failed": "SURVIVED", "error": "ERROR", "skipped": "SKIPPED"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutants", action="store_true", help="print which test catches which broken build")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the marker `catches` on the right build, and on each broken one that the marker names."""
    builds = [name for marker in metafunc.definition.iter_markers("catches") for name in marker.args]
    if builds:
        broken = [pytest.param(name, marks=[pytest.mark.mutant(name), pytest.mark.long]) for name in builds]
        metafunc.parametrize("build", [pytest.param(None, id="right build"), *broken], indirect=True)


@pytest.fixture(autouse=True)
def build(request: pytest.FixtureRequest) -> None:
    """Break the build, where the test is run on a broken one."""
    name = getattr(request, "param", None)
    if name is not None:
        from mutants import mutate

        mutate(name, request.getfixturevalue("monkeypatch").setattr)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Pass a test on a broken build if it fails there."""
    params = pyfuncitem.callspec.params if hasattr(pyfuncitem, "callspec") else {}
    if params.get("build") is None or pyfuncitem.get_closest_marker("catches") is None:
        return (yield)
    try:
        yield
    except Exception:
        return True
    pytest.fail("The broken build passes this test.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    report = yield
    marker = item.get_closest_marker("mutant")
    if marker is not None:
        report.user_properties.append(("mutant", marker.args[0]))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.getoption("--mutants"):
        return
    from mutants import MUTANTS

    seen: dict[str | None, list[tuple[str, str, float]]] = {}
    for outcome, told in _OUTCOMES.items():
        for report in terminalreporter.stats.get(outcome, ()):
            properties = dict(getattr(report, "user_properties", ()))
            if "mutant" in properties:
                seconds = properties.get("seconds", report.duration)
                seen.setdefault(properties["mutant"], []).append((report.nodeid.partition("@")[0], told, seconds))
    right = [("(the right build)", "", *each) for each in seen.get(None, [])]
    rows = [
        (name, mutant.takes_out, *each)
        for name, mutant in MUTANTS.items()
        for each in seen.get(name) or [("no test", "SURVIVED", 0.0)]
    ]
    write = terminalreporter.write_line
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    write("")
    write(f"{'mutant':<{widths[0]}}  {'takes out':<{widths[1]}}  {'':<8}  seconds  test")
    for name, takes_out, test, told, seconds in (*right, *rows):
        told = "passes" if takes_out == "" and told == "caught" else told
        write(f"{name:<{widths[0]}}  {takes_out:<{widths[1]}}  {told:<8}  {seconds:>7.1f}  {test}")
    if any(told != "caught" for _, _, _, told, _ in (*right, *rows)):
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
