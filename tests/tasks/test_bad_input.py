"""What can be wrong before and around a task: each error names the thing and the next step."""

from __future__ import annotations

import asyncio
import inspect
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from mutants import mutate
from prefect import Task
from pydantic import SecretStr

from ivcap_flows import tasks, wait_or_park
from ivcap_flows.errors import (
    ConfigurationError,
    InputError,
    JournalError,
    NewerSchemaError,
    NotAuthorizedError,
    NotFoundError,
    ParameterError,
    UnreachableError,
)
from ivcap_flows.handles import Job, LocalFile
from ivcap_flows.journal import Journal
from ivcap_flows.tasks import (
    attach_aspect,
    get_order,
    linked_person,
    place_order,
    register_dataset,
    register_item,
    request_job,
    upload_artifact,
    wait_for_jobs,
    wait_for_orders,
)


def writes(effects):
    return [r for r in effects.embedded.requests() if r["method"] not in ("GET", "HEAD")]


LISTS = {
    "list_artifacts": {},
    "list_artifacts by name": {"name": "n"},
    "list_aspects": {"schema": "urn:x:schema:1"},
    "search": {"query": "query(X) :- p(X)."},
    "list_collections": {},
    "list_items": {"subtype": "PERSON"},
    "list_jobs": {},
    "list_jobs by status": {"status": "succeeded"},
    "list_orders": {},
    "list_orders by status": {"status": "succeeded"},
    "list_services": {},
}


@pytest.mark.parametrize("limit", [-1, "3"])
@pytest.mark.parametrize("what", LISTS)
def test_a_limit_that_is_none(in_flow, effects, what, limit):
    """It is refused, since an empty list would say that there is nothing."""
    task = getattr(tasks, what.partition(" ")[0])
    with pytest.raises(InputError, match="`limit` must be a whole number from 0"):
        in_flow(lambda: task(**LISTS[what], limit=limit))


@pytest.mark.parametrize("task", [place_order, request_job])
def test_an_unknown_service(in_flow, effects, task):
    """An unknown service is refused with similar names, before anything is written."""
    with pytest.raises(InputError, match=r"no service named 'ecko'.*Candidates: .*'echo'"):
        in_flow(lambda: task("ecko", {"message": "?"}))
    assert writes(effects) == []


def test_all_faulty_parameters_at_once(in_flow, effects, tasks_service):
    """One error names all missing, mistyped and unknown parameters and what is expected. Nothing is sent."""
    with pytest.raises(ParameterError) as caught:
        in_flow(lambda: place_order(tasks_service, {"base": "1981", "kind": "hot", "scael": 2.0}))
    faults = caught.value.faults
    assert len(faults) == 4
    for words in (
        "'series' (artifact) is missing",
        "'base' takes an int, not '1981' (str)",
        "'kind' takes one of 'warm', 'cold'",
        "no parameter 'scael'; did you mean 'scale'?",
    ):
        assert words in str(caught.value)
    assert writes(effects) == []


def test_all_faults_of_a_request_at_once(in_flow, effects):
    """A job's request is checked against the service's model in the same way."""
    with pytest.raises(ParameterError) as caught:
        in_flow(lambda: request_job("sleep", {"secnods": 1}))
    assert "seconds" in str(caught.value) and "secnods" in str(caught.value)
    assert len(caught.value.faults) == 2
    assert writes(effects) == []


def test_a_file_where_an_artifact_belongs(in_flow, effects, tasks_service, source):
    """A path or file that was not uploaded is refused, and the error says to upload it."""
    file = LocalFile(path=str(source), sha256="0" * 64, size=1)
    with pytest.raises(ParameterError, match="upload the file first"):
        in_flow(lambda: place_order(tasks_service, {"series": file}))
    with pytest.raises(ParameterError, match="takes an artifact or its URN"):
        in_flow(lambda: place_order(tasks_service, {"series": str(source)}))
    assert writes(effects) == []


NONSENSE = [
    (lambda: attach_aspect("urn:example:thing:1", {"text": "?"}), "declares no aspect schema"),
    (lambda: attach_aspect("no urn", {"$schema": "urn:example:schema:1"}), "Pass a handle or a URN"),
    (lambda: attach_aspect("urn:example:thing:1", "text", schema="urn:x:1"), "a mapping or a pydantic model, not str"),
    (lambda: request_job("echo", ["message"]), "a mapping or a pydantic model, not list"),
    (lambda: place_order("echo", ["message"]), "a mapping of names to values, not list"),
    (lambda: place_order(" ", {"message": "?"}), "The name of the service is empty"),
    (lambda: get_order("the last one"), "Pass a handle or a URN"),
    (
        lambda: wait_for_jobs(Job(urn="urn:ivcap:job:1", platform="p", service="urn:ivcap:service:1")),
        "Pass a list of jobs, as in `wait_for_jobs([job])`, not Job alone",
    ),
    (lambda: wait_for_orders("urn:ivcap:order:1"), "not 'urn:ivcap:order:1' alone"),
    (lambda: upload_artifact("nowhere.csv"), "nowhere.csv cannot be read: No such file"),
]


def test_values_that_make_no_sense(in_flow, effects):
    """A wrong value is an InputError that quotes it, and nothing is sent."""

    def body():
        for wrong, words in NONSENSE:
            with pytest.raises(InputError) as caught:
                wrong()
            assert words in str(caught.value)

    in_flow(body)
    assert writes(effects) == []


def test_a_mapping_where_a_statement_for_provena_belongs(in_flow):
    """The error names the class, or the module that has the classes."""

    def body():
        with pytest.raises(InputError, match=r"statement of ivcap_flows\.provena\.models.*not dict"):
            register_item({"display_name": "reef"})
        with pytest.raises(InputError, match=r"Pass a CollectionFormat.*not dict"):
            register_dataset({"dataset_info": {}})

    in_flow(body)


@pytest.mark.parametrize("work", ["urn:ivcap:order:1", None])
def test_one_thing_where_a_list_belongs(work):
    """`wait_or_park` is no task, and refuses it as well."""
    with pytest.raises(InputError, match=r"Pass a list of orders, as in `wait_or_park\(\[order\]\)`"):
        wait_or_park(work)


def test_waiting_for_nothing(in_flow):
    """Waiting for no orders returns at once."""
    assert in_flow(lambda: wait_for_orders([])) == []


def test_a_service_that_the_embedded_platform_lacks(in_flow, embedded_platform, monkeypatch):
    """The error says that it is the embedded one, where its state lies, and how a service gets there."""
    for name in list(os.environ):
        if name.startswith(("IVCAP_URL", "IVCAP_JWT", "PROVENA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_LOCAL_DIR", str(embedded_platform._embedded.directory))
    for service in ("ecko", "urn:ivcap:service:00000000-0000-4000-8000-000000000000"):
        with pytest.raises((InputError, NotFoundError)) as caught:
            in_flow(lambda named=service: place_order(named, {}))
        place = str(embedded_platform._embedded.directory)
        for said in (place, "ivcap-flows local register", "IVCAP_LOCAL_DIR", "IVCAP_URL"):
            assert said in str(caught.value)


def test_no_network(in_flow, unique, monkeypatch):
    """A platform that cannot be reached is an error with its URL and what to check, after a bounded time."""
    monkeypatch.setenv("IVCAP_URL", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"IVCAP at http://127\.0\.0\.1:9 .*Check the URL") as caught:
        in_flow(lambda: place_order("echo", {"message": unique}))
    assert caught.value.retryable and caught.value.sent is False


def test_no_network_to_provena(in_flow, monkeypatch):
    """The same for Provena, whose login is requested first."""
    for name in ("PROVENA_KEYCLOAK", "PROVENA_REGISTRY_API"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9.*Check the URL"):
        in_flow(linked_person)


@pytest.mark.parametrize("token", ["IVCAP_JWT_EXPIRED", "made up", "changed"])
def test_a_token_that_is_not_accepted(in_flow, effects, unique, monkeypatch, token):
    """An expired, made up or changed token is refused with the next step, and the token is not shown."""
    good = os.environ["IVCAP_JWT"]
    given = {"made up": "no-token-at-all", "changed": good[:-4] + "AAAA"}.get(token) or os.environ[token]
    monkeypatch.setenv("IVCAP_JWT", given)
    with pytest.raises(NotAuthorizedError, match="Check that the token is set.*has not expired") as caught:
        in_flow(lambda: place_order("echo", {"message": unique}))
    assert not caught.value.retryable and caught.value.status == 401
    assert given not in str(caught.value) and given not in repr(caught.value.data)
    assert writes(effects) == []


def test_a_token_that_expires_during_a_wait(in_flow, effects, unique):
    """A wait whose token expires ends at once with the next step. The order continues and can be waited for again."""

    def body():
        order = place_order("echo", {"message": unique})
        effects.embedded.add_fault(method="GET", path="^/1/orders/", count=1, expire_token=True)
        with pytest.raises(NotAuthorizedError, match="has not expired"):
            wait_for_orders([order], timeout=60)
        return wait_for_orders([place_order("echo", {"message": unique})], timeout=60)

    assert in_flow(body)[0].succeeded
    assert effects.count("/1/orders") == 1


def test_a_provena_token_that_is_not_accepted(in_flow, monkeypatch):
    """A made up offline token is refused by Provena's login with the next step, and not shown."""
    monkeypatch.setenv("PROVENA_OFFLINE_TOKEN", "no-token-at-all")
    with pytest.raises((NotAuthorizedError, ConfigurationError), match=r"[Ll]og in|offline token") as caught:
        in_flow(linked_person)
    assert "no-token-at-all" not in str(caught.value)


@pytest.mark.parametrize(("variable", "words"), [("IVCAP_JWT", "IVCAP_JWT is not"), ("IVCAP_URL", "IVCAP_URL is not")])
def test_half_of_the_settings(in_flow, unique, monkeypatch, variable, words):
    """A URL without a token, or a token without a URL, does not lead to the embedded platform."""
    for name in list(os.environ):
        if name.startswith("PROVENA") or name == variable:
            monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match=words):
        in_flow(lambda: place_order("echo", {"message": unique}))


@pytest.fixture
def journal_at(embedded_platform, tmp_path, monkeypatch):
    """Return a function that makes a path of the test's folder the journal."""

    def name(path: str) -> None:
        monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / path}")

    return name


@pytest.mark.parametrize("trouble", ["a folder", "below a file", "no database"])
def test_a_journal_that_cannot_be_used(embedded_platform, journal_at, run_here, tmp_path, unique, trouble):
    """Without its journal a task sends nothing. The error names the file and the setting."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("no database at all, but a text of some length " * 50)
    journal_at({"a folder": "folder", "below a file": "file/journal.sqlite", "no database": "file"}[trouble])
    with pytest.raises(JournalError, match=r"The journal sqlite:.*cannot be opened.*IVCAP_FLOWS_JOURNAL"):
        run_here(lambda: place_order("echo", {"message": unique}))
    assert embedded_platform.requests("POST") == []


def test_a_journal_of_a_newer_version(embedded_platform, journal_at, run_here, tmp_path, unique):
    """A journal of another version is not changed. The error says to use that version or another journal."""
    Journal.open(f"sqlite:///{tmp_path / 'newer.sqlite'}").close()
    with closing(sqlite3.connect(tmp_path / "newer.sqlite")) as connection, connection:
        connection.execute("UPDATE journal_info SET version = '9999'")
    journal_at("newer.sqlite")
    with pytest.raises(NewerSchemaError, match=r"another version of ivcap-flows \(tables 9999.*Use that version"):
        run_here(lambda: place_order("echo", {"message": unique}))
    assert embedded_platform.requests("POST") == []


FULL_DISK = """
import resource, sys
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.tasks import download_artifact

resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21))
try:
    download_artifact.fn(sys.argv[1], sys.argv[2])
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.long
def test_a_full_disk(in_flow, tmp_path):
    """A download that does not fit is an error with the next step, and leaves no file."""
    big, folder = tmp_path / "big.bin", tmp_path / "full"
    big.write_bytes(os.urandom(3 * 1024 * 1024))
    folder.mkdir()
    series = in_flow(lambda: upload_artifact(big))
    # No file of the process may grow beyond 2 MiB: to the program that is a disk without room.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, series.urn, str(folder / "back.bin")],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"There is no room for {folder / 'back.bin'}" in done.stdout, done.stderr
    assert "Free space or choose another folder" in done.stdout
    assert list(folder.iterdir()) == []


HALF = "x\ud800"
PATHS = {
    ("artifact_for_file", "path"),
    ("download_artifact", "path"),
    ("download_dataset_files", "folder"),
    ("fetch_url", "target"),
    ("lineage_report", "path"),
    ("mint_dataset", "terms"),
    ("register_model_run", "terms"),
    ("register_model_run", "workflow"),
    ("register_model_runs", "out"),
    ("register_model_runs", "source"),
    ("register_model_runs", "terms"),
    ("register_model_runs", "workflow"),
    ("register_service", "definition"),
    ("untar_artifact", "folder"),
    ("upload_artifact", "source"),
    ("upload_dataset_files", "source"),
    ("upload_directory", "path"),
}
"""The tasks' parameters that are paths of this machine. Their names may hold bytes that are no UTF-8."""


def unfit(verb, name):
    """Values of a parameter that are refused."""
    if (verb, name) in PATHS:
        return [HALF, "x\0", [HALF]]
    return [HALF, "x\udcf1", ["fine", HALF], SecretStr(HALF)]


def refused(effects):
    """Give each parameter of each task what it cannot be, and to the others nothing that a platform could be asked."""
    done, count = len(effects.embedded.requests()), 0
    for verb in (name for name in tasks.__all__ if isinstance(getattr(tasks, name), Task)):
        function = getattr(tasks, verb).fn
        is_async = inspect.iscoroutinefunction(function)
        names = inspect.signature(function).parameters
        for name in names:
            for value in unfit(verb.removeprefix("a" if is_async else ""), name)[: 1 if is_async else None]:
                given = {other: None for other, how in names.items() if how.default is how.empty} | {name: value}
                with pytest.raises(InputError) as caught:
                    asyncio.run(function(**given)) if is_async else function(**given)
                assert f"`{name}`" in caught.value.message and "half" in caught.value.message
                count += 1
    assert len(effects.embedded.requests()) == done
    assert count > 1000


@pytest.mark.mutant(None)
def test_a_text_or_path_that_nothing_can_hold_is_refused_by_every_task(effects):
    """Half a surrogate pair, and a NUL in a path: the error names the argument, and nothing is sent."""
    refused(effects)


@pytest.mark.mutant("arguments unchecked")
def test_a_build_that_does_not_check_arguments_is_found(effects, monkeypatch):
    """The test above fails on it."""
    mutate("arguments unchecked", monkeypatch.setattr)
    with pytest.raises((Exception, pytest.fail.Exception)):
        refused(effects)
