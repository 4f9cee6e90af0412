"""`ivcap-flows export RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ivcap_flows.cli.records import find_run, open_journal
from ivcap_flows.errors import InputError
from ivcap_flows.provenance import prov_json
from ivcap_flows.sinks import run_graph

__all__ = ["export"]

Format = Literal["prov-json"]


def export(
    run: str,
    /,
    *,
    format: Format = "prov-json",  # noqa: A002 - the option's name
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
) -> None:
    """Write the provenance of a run as PROV-JSON.

    Args:
        run: Its id, the beginning of it, the id of one of its Prefect flow runs, or `latest`.
        format: The format.
        output: The file; without it, standard output.
    """
    with open_journal() as journal:
        text = prov_json.dumps(run_graph(journal, find_run(journal, run).id))
    if output is None:
        print(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"The file {output} cannot be written: {error.strerror or error}.") from error
