"""`ivcap-flows doctor`: check everything that a flow needs. The checks are in `cli/checks/`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter
from rich.text import Text

from ivcap_flows.cli.checks import Wrong
from ivcap_flows.cli.checks.blocks import check_block
from ivcap_flows.cli.checks.clocks import check_clocks
from ivcap_flows.cli.checks.journal import check_journal
from ivcap_flows.cli.checks.packages import check_packages
from ivcap_flows.cli.checks.platforms import check_ivcap, check_provena
from ivcap_flows.cli.checks.runs import check_runs
from ivcap_flows.cli.output import Json, console, print_json
from ivcap_flows.errors import InputError, IvcapFlowsError, PlatformOffError

__all__ = ["doctor"]

Check = Callable[[], list[str]]

_CHECKS: Final[dict[str, Check]] = {
    "packages": check_packages,
    "journal": check_journal,
    "runs": check_runs,
    "IVCAP": check_ivcap,
    "Provena": check_provena,
    "clocks": check_clocks,
}


@dataclass(frozen=True)
class _Result:
    check: str
    ok: bool
    notes: list[str]


def doctor(
    *,
    block: Annotated[str | None, Parameter(name="--block")] = None,
    real: Annotated[bool, Parameter(name="--real")] = False,
    full: Annotated[bool, Parameter(name="--full")] = False,
    as_json: Json = False,
) -> int:
    """Check packages, journal, platforms and clocks, and list unfinished runs and work. Exit status 1 if something is
    wrong.

    Args:
        block: Also check the credentials blocks of this name in Prefect. A login that can be renewed is renewed.
        real: Instead check that the platforms answer as this package expects, without writing anything, and print a
            text that can be sent to the maintainers. With --block, those of the blocks.
        full: With --real, also name the platforms' addresses and your account, and quote their messages.
    """
    if real:
        # Imported here, since the other checks do not need it.
        from ivcap_flows.cli.checks.real import check_real, print_findings

        findings = check_real(block, full=full)
        if as_json:
            print_json(findings)
        else:
            print_findings(findings, full=full)
        return int(any(finding.wrong for finding in findings))
    if full:
        raise InputError("--full belongs to --real.")
    checks = dict(_CHECKS)
    if block is not None:
        checks[f"block {block}"] = lambda: check_block(block)
    results = [_result(name, check) for name, check in checks.items()]
    if as_json:
        print_json(results)
    else:
        for result in results:
            mark = Text("ok     ", "green") if result.ok else Text("wrong  ", "red")
            first, *more = result.notes
            console.print(Text.assemble(mark, (result.check, "bold"), "  ", first))
            for note in more:
                console.print(f"       {note}")
    return int(not all(result.ok for result in results))


def _result(name: str, check: Check) -> _Result:
    try:
        notes = check()
    except IvcapFlowsError as error:
        # A platform that is switched off is not needed.
        return _Result(name, isinstance(error, PlatformOffError), [str(error)])
    return _Result(name, not any(isinstance(note, Wrong) for note in notes), notes)
