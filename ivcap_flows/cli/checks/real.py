"""`ivcap-flows doctor --real`: the checks of both deployments, as a text that can be sent to the maintainers."""

from __future__ import annotations

import platform
from functools import partial
from importlib.metadata import metadata, version
from typing import Final

from rich.text import Text

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client, provena_client
from ivcap_flows.cli.checks.deployed_ivcap import IVCAP_CHECKS
from ivcap_flows.cli.checks.deployed_provena import PROVENA_CHECKS
from ivcap_flows.cli.checks.deployment import Finding, Outcome, check_deployment
from ivcap_flows.cli.output import console
from ivcap_flows.durable.wording import counted

__all__ = ["check_real", "print_findings"]

_COLOURS: Final[dict[Outcome, str]] = {"ok": "green", "differs": "red", "no answer": "red", "not looked at": "dim"}


def check_real(block: str | None, *, full: bool) -> list[Finding]:
    """Check both platforms of the environment, or of the blocks of this name."""

    async def both() -> list[Finding]:
        ivcap, provena = partial(ivcap_client, deployed=False), partial(provena_client, deployed=False)
        return [
            *await check_deployment("IVCAP", partial(ivcap, block), IVCAP_CHECKS, full=full),
            *await check_deployment("Provena", partial(provena, block), PROVENA_CHECKS, full=full),
        ]

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
    wrong = counted(sum(finding.wrong for finding in findings), "checks")
    left_out = "tokens, e-mail addresses" + ("" if full else ", names, ids, addresses and the platforms' own words")
    console.print(f"\n{wrong} of {len(findings)} show something wrong. Nothing was written on a platform.")
    console.print(f"Left out: {left_out}." + ("" if full else " --full leaves out the first two alone."))
    console.print(f"To send this text to the maintainers, open an issue with it at {_issues()}.")


def _issues() -> str:
    urls: dict[str, str] = dict(each.split(", ", 1) for each in metadata("ivcap-flows").get_all("Project-URL") or ())
    return urls.get("Issues", "the project's issue tracker")
