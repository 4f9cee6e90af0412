"""`ivcap-flows doctor --real`: the checks of both deployments, as a text that can be sent to the maintainers."""

from __future__ import annotations

import platform
from functools import partial
from importlib.metadata import metadata, version
from typing import Final

from rich.text import Text

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client, provena_client
from ivcap_flows.cli.checks.blocks import saved_blocks
from ivcap_flows.cli.checks.deployed_ivcap import IVCAP_CHECKS
from ivcap_flows.cli.checks.deployed_provena import PROVENA_CHECKS
from ivcap_flows.cli.checks.deployment import Finding, Outcome, check_deployment
from ivcap_flows.cli.output import console

__all__ = ["check_real", "print_findings"]

_COLOURS: Final[dict[Outcome, str]] = {"ok": "green", "differs": "red", "no answer": "red", "not looked at": "dim"}


def check_real(block: str | None, *, full: bool) -> list[Finding]:
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


def print_findings(findings: list[Finding], *, full: bool) -> None:
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
