"""`ivcap-flows doctor`: check everything that a flow needs. More checks are in `cli/checks/`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Annotated, Final

from cyclopts import Parameter
from packaging.requirements import Requirement
from rich.text import Text

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client, provena_client
from ivcap_flows.cli.checks import Wrong
from ivcap_flows.cli.checks.blocks import check_block, saved_blocks
from ivcap_flows.cli.checks.clocks import check_clocks
from ivcap_flows.cli.checks.deployed_ivcap import IVCAP_CHECKS
from ivcap_flows.cli.checks.deployed_provena import PROVENA_CHECKS
from ivcap_flows.cli.checks.deployment import Finding, Outcome, check_deployment
from ivcap_flows.cli.checks.platforms import check_ivcap, check_provena
from ivcap_flows.cli.checks.runs import check_runs
from ivcap_flows.cli.output import Json, console, moment, print_json
from ivcap_flows.cli.records import open_journal
from ivcap_flows.errors import InputError, IvcapFlowsError, PlatformOffError
from ivcap_flows.identity import short_id
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.secrets import scrub_text
from ivcap_flows.settings import Settings
from ivcap_flows.sinks.outbox import FAULT

__all__ = ["doctor"]

Check = Callable[[], list[str]]
_COLOURS: Final[dict[Outcome, str]] = {"ok": "green", "differs": "red", "no answer": "red", "not looked at": "dim"}


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
    """Check packages, settings, journal, platforms and clocks, and list unfinished runs and work. Exit status 1 if
    something is wrong.

    Args:
        block: Also check the credentials blocks of this name in Prefect. A login that can be renewed is renewed.
        real: Instead check that the platforms answer as this package expects, without writing anything, and print a
            text that can be sent to the maintainers. With --block, those of the blocks.
        full: With --real, also name the platforms' addresses and your account, and quote their messages.
    """
    if real:
        findings = _check_real(block, full=full)
        if as_json:
            print_json(findings)
        else:
            _print_findings(findings, full=full)
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


def _check_packages() -> list[str]:
    """Compare the versions that pip chose with the ranges that are known to work."""
    wrong = []
    for text in requires("ivcap-flows") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found} is outside {wanted.specifier}")
    if wrong:
        return [Wrong("; ".join(wrong) + ". Reinstall with `pip install --upgrade ivcap-flows`.")]
    return [f"ivcap-flows {version('ivcap-flows')}, prefect {version('prefect')}, Python {platform.python_version()}"]


def _check_settings() -> list[str]:
    """Name the variables that are set, and those that are no settings."""
    settings, unknown = Settings(), Settings.unknown()
    named = [name for name in settings.settings_names() if os.environ.get(name, "").strip()]
    return [f"{', '.join(named) or 'none'} set in the environment", *map(Wrong, unknown)]


def _check_journal() -> list[str]:
    """Name the journal, its weaknesses, effects without a reply or with a second one, and refused deliveries."""
    url = Settings().journal
    if Journal.is_missing(url):
        return [f"{scrub_text(url)} does not exist yet; the first run makes it"]
    with open_journal() as journal:
        in_doubt = [
            f"{_doubt(row)}; the next run that asks for it resolves it"
            for row in journal.intents.where(state="sent", limit=None)
        ]
        twice = [
            Wrong(
                f"made twice: {row.noun} for {row.subject} ({short_id(row.key)}): {row.urn} is kept; the platform "
                f"also has {', '.join(row.duplicates)}"
            )
            for row in journal.intents.where(only="twice", limit=None)
        ]
        refused = [
            f"refused by {row.sink}: run {row.run_id}: {row.reason}"
            for row in journal.deliveries.where(state="dead", limit=None)
        ]
        failed = [
            f"not delivered to {row.sink}: run {row.run_id}: {row.reason}"
            for row in journal.deliveries.where(state="pending", limit=None)
            if (row.reason or "").startswith(FAULT)
        ]
        exposure = journal.exposure()
        state = [journal.url, *map(Wrong, journal.weaknesses()), *([] if exposure is None else [exposure])]
        if journal.is_relative:
            state.append(
                "Its path is relative, so that each folder has a journal of its own, and deployed runs are refused. "
                "Name an absolute path in IVCAP_FLOWS_JOURNAL."
            )
        return [*state, *in_doubt, *twice, *refused, *failed]


def _doubt(row: IntentRow) -> str:
    name = f"{row.noun} for {row.subject} ({short_id(row.key)})"
    if row.urn is not None:
        return f"missing on the platform: {name}, {row.urn}"
    return f"no reply known: {name}, sent {moment(row.sent_at)}"


def _check_real(block: str | None, *, full: bool) -> list[Finding]:
    """Check both platforms of the environment, or of the blocks of this name, of which one may be missing.

    Raises ConfigurationError if there is no block of this name.
    """

    async def both() -> list[Finding]:
        ivcap, provena = (None, None) if block is None else await saved_blocks(block)
        found: list[Finding] = []
        if block is None or ivcap is not None:
            of_ivcap = partial(ivcap_client, ivcap, deployed=False)
            found += await check_deployment("IVCAP", of_ivcap, IVCAP_CHECKS, full=full)
        if block is None or provena is not None:
            of_provena = partial(provena_client, provena, deployed=False)
            found += await check_deployment("Provena", of_provena, PROVENA_CHECKS, full=full)
        return found

    return loop.run(both())


def _print_findings(findings: list[Finding], *, full: bool) -> None:
    """Print what was found, what is left out, and how to send it."""
    console.print(f"ivcap-flows {version('ivcap-flows')}, Python {platform.python_version()}, doctor --real")
    for name in dict.fromkeys(finding.platform for finding in findings):
        console.print(f"\n{name}")
        for finding in findings:
            if finding.platform == name:
                mark = Text(f"{finding.outcome:<15}", _COLOURS.get(finding.outcome, "yellow"))
                console.print(Text.assemble(mark, (finding.check, "bold"), f": {finding.note}"))
                if finding.means is not None:
                    console.print(f"{'':15}{finding.means}")
    wrong = sum(finding.wrong for finding in findings)
    left_out = "tokens, e-mail addresses" + ("" if full else ", names, ids, addresses and the platforms' own words")
    console.print(f"\n{wrong} of {len(findings)} checks found something wrong. Nothing was written on a platform.")
    console.print(f"Left out: {left_out}." + ("" if full else " With --full, only the first two are."))
    console.print(f"To send this text to the maintainers, open an issue with it at {_issues()}.")


def _issues() -> str:
    urls: dict[str, str] = dict(each.split(", ", 1) for each in metadata("ivcap-flows").get_all("Project-URL") or ())
    return urls.get("Issues", "the project's issue tracker")


_CHECKS: Final[dict[str, Check]] = {
    "packages": _check_packages,
    "settings": _check_settings,
    "journal": _check_journal,
    "runs": check_runs,
    "IVCAP": check_ivcap,
    "Provena": check_provena,
    "clocks": check_clocks,
}
