"""A secret of each kind passes through a flow, and is in nothing that the package writes or says."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import random
import string
from collections.abc import Mapping
from pathlib import Path

import pytest
from modules import load
from mutants import mutate
from prefect import flow, task
from prefect.client.orchestration import get_client
from pydantic import SecretStr

import ivcap_flows
from ivcap_flows import annotate, recorded
from ivcap_flows.capture import hide, recorder
from ivcap_flows.cli import main
from ivcap_flows.errors import ParameterError
from ivcap_flows.identity import CONTENT_SCHEMA, INTENT_SCHEMA, KEY_VERSION
from ivcap_flows.secrets import logger_of
from ivcap_flows.sinks.folder import ENDINGS
from ivcap_flows.tasks import place_order, upload_artifact

SCRIPT = """
from pathlib import Path

from ivcap_flows import flow, task

DB_PASSWORD = "{literal}"
URL = "postgresql://ada:{address}@db/x"


@task
def read(config: Path, notebook: Path) -> int:
    headers = {{"X-Api-Key": "{item}"}}  # it was {comment}, as in token="{comment}"
    return len(config.read_text() + notebook.read_text() + str(headers))


@flow
def scripted(config: Path, notebook: Path) -> int:
    return read(config, notebook)
"""
CELL = {"cell_type": "code", "source": ["login(\n", "    password='{notebook}')"], "outputs": []}


def letters(count: int) -> str:
    return "q7" + "".join(random.choices(string.ascii_letters + string.digits, k=count - 2))


def canaries() -> dict[str, str]:
    """New secrets for each test, which are in no code."""
    signed = base64.urlsafe_b64encode(letters(24).encode()).decode().rstrip("=")
    return {
        "type": "t y/" + letters(8),
        "name": letters(9),
        "nested name": letters(9),
        "known": letters(9),
        "dsn": letters(9),
        "url": letters(9),
        "argv": letters(9),
        "option": letters(9),
        "command": letters(9),
        "order": letters(9),
        "jwt": f"eyJhbGciOiJIUzI1NiJ9.{signed}.{letters(20)}",
        "github": "gh" + "p_" + letters(36),
        "aws": "AK" + "IA" + "".join(random.choices(string.ascii_uppercase + "234567", k=16)),
        "azure": letters(86) + "==",
        "gcp": "AI" + "za" + letters(35),
        "slack": "xo" + "xb-" + letters(30),
        "private key": letters(40),
    }


def literals() -> dict[str, str]:
    """New secrets that no value of a run holds, but its code and its files."""
    return {name: letters(9) for name in ("literal", "address", "item", "comment", "configuration", "notebook")}


def run_script(secret: Mapping[str, str], folder: Path) -> str:
    """Run a flow that has secrets in its own code, its configuration and a notebook. Return the id of the run."""
    (folder / "careless.py").write_text(SCRIPT.format_map(secret))
    (folder / "config.yaml").write_text(f"db:\n  password: {secret['configuration']}\n")
    cells = json.dumps({"cells": [CELL]}).replace("{notebook}", secret["notebook"])
    (folder / "notes.ipynb").write_text(cells)
    load(folder / "careless.py").scripted(folder / "config.yaml", folder / "notes.ipynb")
    assert recorder().flush()
    [run] = [run for run in recorder().journal.runs.recent(1) if run.flow_name == "scripted"]
    return run.id


def carry(secret: Mapping[str, str], folder: Path) -> None:
    """A flow that handles all secrets carelessly, and fails."""
    hide(secret["known"])
    log = logger_of("ivcap_flows.tasks")
    block = f"-----BEGIN PRIVATE KEY-----\n{secret['private key']}\n-----END PRIVATE KEY-----"

    @task
    @recorded
    def told(**given: object) -> Path:
        annotate(note=f"with {secret['type']} and {secret['name']}", known=secret["known"], pem=block)
        log.warning("about %s and %s", secret["type"], " ".join(given["tokens"]))
        made = folder / f"report-{secret['name']}-{secret['known']}.csv"
        made.write_text("n\n1\n")
        return made

    @flow(name="careless", validate_parameters=False)
    @recorded
    def careless(password: SecretStr, api_key: str, dsn: str, url: str, arguments: list[str], options: dict) -> None:
        tokens = [secret[name] for name in ("jwt", "github", "aws", "azure", "gcp", "slack")]
        made = told(inner={"deep": [{"db_password": secret["nested name"]}]}, tokens=tokens, note=f"a {tokens[1]} b")
        upload_artifact(made)
        place_order("echo", {"message": f"password={secret['order']} {secret['jwt']}"}, name=f"for {secret['name']}")
        log.warning("ordered %s", secret["order"])
        with contextlib.suppress(ParameterError):
            place_order("echo", {"message": "x", "token": secret["nested name"]})
        try:
            raise KeyError(f"no access by {secret['type']}, {secret['dsn']}")
        except KeyError as cause:
            raise ValueError("cannot log in with " + " or ".join(f"<{each}>" for each in secret.values())) from cause

    with pytest.raises(ValueError, match="cannot log in"):
        careless(
            SecretStr(secret["type"]),
            secret["name"],
            f"host=db user=ada password={secret['dsn']} dbname=x",
            f"postgresql://ada:{secret['url']}@db/x",
            ["psql", "--password", secret["argv"], f"--token={secret['option']}"],
            {"pem": block, "n": 1, "run": ("sshpass", "-p", secret["command"], "ssh", "host")},
        )
    assert recorder().flush()


def ways_out(folder: Path, script: str, capsys: pytest.CaptureFixture[str], on_platform) -> dict[str, str]:
    """Return all that the package has written and said, by place."""
    out: dict[str, str] = {}

    def command(*words: str) -> None:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(list(words))
        out[" ".join(words[:4])] = "".join(capsys.readouterr())

    for words in ("show latest", "show latest --json", "orders", "orders --json", "runs --json"):
        command(*words.split())
    for run in ("latest", script):
        for form in (*(each for each in ENDINGS if each != "ro-crate"), "openlineage"):
            command("export", run, f"--format={form}")
        command("export", run, "--format=ro-crate", "-o", str(folder / f"crate of {run}"))
    command("trace", "latest", "--html", str(folder / "page.html"))

    async def books(client):
        for schema in (INTENT_SCHEMA, CONTENT_SCHEMA):
            yield [record.model_dump_json() async for record in client.aspects.list(schema=schema, limit=500)]
        yield [item.model_dump_json() async for item in client.artifacts.list(limit=500)]
        yield [item.name async for item in client.orders.list(limit=500)]

    async def read(client):
        return [page async for page in books(client)]

    out["the platform's books"] = str(on_platform(read))
    with get_client(sync_client=True) as client:
        out["Prefect's artifacts"] = str([artifact.data for artifact in client.read_artifacts()])
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".csv" and not path.name.endswith(".key"):
            out[f"the file {path.relative_to(folder)}"] = path.read_bytes().decode("utf-8", "replace")
    return out


def leaks(tmp_path, scripts, capsys, caplog, on_platform) -> set[tuple[str, str]]:
    secret, written = canaries(), literals()
    work = tmp_path / "work"
    work.mkdir()
    with caplog.at_level(logging.DEBUG, "ivcap_flows"):
        script = run_script(written, scripts)
        carry(secret, work)
    texts = ways_out(tmp_path, script, capsys, on_platform)
    package = Path(ivcap_flows.__file__).parent
    ours = [record for record in caplog.records if Path(record.pathname).is_relative_to(package)]
    texts["the package's log"] = "\n".join(f"{record.getMessage()} {record.exc_text or ''}" for record in ours)
    assert {"the file journal.sqlite", "the file page.html", "the package's log"} <= texts.keys()
    assert "scripted" in texts[f"export {script} --format=openlineage"]
    assert KEY_VERSION in texts["the platform's books"] and "careless" in texts["show latest"]
    return {
        (kind, where) for where, text in texts.items() for kind, value in {**secret, **written}.items() if value in text
    }


@pytest.fixture
def scripts(tmp_path_factory) -> Path:
    """A folder outside of those in which nothing may show a secret."""
    return tmp_path_factory.mktemp("scripts")


@pytest.mark.mutant(None)
def test_no_canary_leaves_by_any_way(tmp_path, scripts, capsys, caplog, on_platform, effects):
    """Journal, commands, exports, page, artifacts, logs and the platform's records have no secret.

    The order itself has the flow's values.
    """
    assert sorted(leaks(tmp_path, scripts, capsys, caplog, on_platform)) == []
    [order] = effects.intents("order")
    assert "**********:" in order.request["parameters"]["message"]

    async def sent(client):
        return (await client.orders.read(order.urn)).values()["message"]

    assert "password=q7" in on_platform(sent)


@pytest.mark.parametrize(
    ("mutant", "kinds"),
    [
        pytest.param(name, kinds, marks=[pytest.mark.mutant(name), pytest.mark.long])
        for name, kinds in {
            "no shapes of secrets": {"jwt", "github", "aws", "azure", "gcp", "slack", "private key"},
            "no values of secret names in texts": {"dsn", "url", "argv", "option", "command", "order"},
            "no names of secrets": {"name", "nested name"},
            "no types of secrets": {"type"},
            "no known secrets": {"known"},
            "contents are not searched": set(literals()),
        }.items()
    ],
)
def test_a_build_without_a_rule_lets_its_canaries_out(
    mutant, kinds, tmp_path, scripts, capsys, caplog, on_platform, effects, monkeypatch
):
    """Without a rule its secrets show, so the test above does not pass for lack of output."""
    mutate(mutant, monkeypatch.setattr)
    assert kinds <= {kind for kind, _ in leaks(tmp_path, scripts, capsys, caplog, on_platform)}
