"""What can be wrong before and around a task: each error names the thing and the next step, and nothing is sent."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect import Task
from pydantic import BaseModel, Field, SecretStr

from ivcap_flows import loop, tasks, wait_or_park
from ivcap_flows.blocks import IvcapService
from ivcap_flows.errors import (
    ConfigurationError,
    ForeignHandleError,
    InputError,
    JournalError,
    NotAuthorizedError,
    NotFoundError,
    PlatformOffError,
    UnreachableError,
)
from ivcap_flows.handles import Artifact, Collection, Job, LocalFile, RegistryItem
from ivcap_flows.http.base import BaseUrl
from ivcap_flows.ivcap.orders import Orders
from ivcap_flows.tasks import ServiceRequest

ALL = {name: getattr(place, name) for place in (tasks, tasks.ivcap, tasks.provena) for name in place.__all__}
# The bodies of the tasks: a flow run around each would take most of the time, and change nothing.
add_to_collection = tasks.add_to_collection.fn
attach_aspect = tasks.attach_aspect.fn
download_artifact = tasks.download_artifact.fn
read_item = tasks.provena.read_item.fn
get_order = tasks.get_order.fn
linked_person = tasks.provena.linked_person.fn
place_order = tasks.place_order.fn
register_dataset = tasks.register_dataset.fn
register_item = tasks.register_item.fn
request_job = tasks.request_job.fn
search = tasks.search.fn
upload_artifact = tasks.upload_artifact.fn
wait_for_jobs = tasks.wait_for_jobs.fn
wait_for_orders = tasks.wait_for_orders.fn


def writes(effects):
    return [r for r in effects.embedded.requests() if r["method"] not in ("GET", "HEAD")]


LISTS = [
    ("list_artifacts", {}),
    ("list_artifacts", {"name": "n"}),
    ("list_aspects", {"schema": "urn:x:schema:1"}),
    ("search", {"query": "query(X) :- p(X)."}),
    ("list_collections", {}),
    ("list_items", {"subtype": "PERSON"}),
    ("list_jobs", {}),
    ("list_jobs", {"status": "succeeded"}),
    ("list_orders", {}),
    ("list_orders", {"status": "succeeded"}),
    ("list_services", {}),
]


def test_a_limit_that_is_none(effects):
    """It is refused, since an empty list would say that there is nothing."""
    for name, arguments in LISTS:
        for limit in (-1, "3"):
            with pytest.raises(InputError, match="`limit` must be a whole number from 0"):
                ALL[name].fn(**arguments, limit=limit)


class Declared(BaseModel):
    jschema: str = Field("urn:example:schema:1", alias="$schema")


class Produce(ServiceRequest):
    service = "tasks-produce"
    series: Artifact | str
    base: int


THING = "urn:example:thing:1"
FILE = LocalFile(path=__file__, sha256="0" * 64, size=1)
FOREIGN = Artifact(urn="urn:ivcap:artifact:1", platform="https://ivcap.example.org")
FOREIGN_SAID = ("belongs to https://ivcap.example.org", "Pass credentials")
NONSENSE = [
    (lambda: place_order("ecko", {}), "no service named 'ecko'", "Candidates: ", "'echo'"),
    (lambda: request_job("ecko", {}), "no service named 'ecko'", "Candidates: ", "'echo'"),
    (
        lambda: place_order("tasks-produce", {"base": "1981", "kind": "hot", "scael": 2.0}),
        "'series' (artifact) is missing",
        "'base' takes an int, not '1981' (str)",
        "'kind' takes one of 'warm', 'cold'",
        "no parameter 'scael'; did you mean 'scale'?",
    ),
    (lambda: request_job("sleep", {"secnods": 1}), "seconds", "secnods"),
    (lambda: place_order("tasks-produce", {"series": FILE}), "Upload the file first"),
    (lambda: place_order("echo", {"message": Path("a.csv")}), "takes a string, not", "upload_artifact('a.csv')"),
    (lambda: request_job("echo", {"nested": [Path("a.csv")]}), "request.nested[0]", "upload_artifact('a.csv')"),
    (lambda: place_order(Produce(series=Path("a.csv"), base=1)), "'series' is a", "upload_artifact('a.csv')"),
    (lambda: place_order("tasks-produce", {"series": __file__}), "takes an artifact or its URN", "upload_artifact("),
    (lambda: request_job("echo", ["message"]), "a mapping or a pydantic model, not list"),
    (lambda: place_order("echo", ["message"]), "a mapping of names to values, not list"),
    (lambda: place_order("echo", {"message": "?"}, name=FOREIGN), "The name of an order is a text, not Artifact"),
    (lambda: place_order(" ", {"message": "?"}), "The name of the service is empty"),
    (lambda: attach_aspect(THING, {"n": 1}), "declares no aspect schema", "pass schema='urn:…'"),
    (lambda: attach_aspect(THING, {"$schema": "note.1"}), "which is no URN"),
    (lambda: attach_aspect(THING, Declared(), schema="urn:other:1"), "was passed. Pass only one"),
    (lambda: attach_aspect(THING, "text", schema="urn:x:1"), "a mapping or a pydantic model, not str"),
    (lambda: attach_aspect("no urn", {"$schema": "urn:example:schema:1"}), "Pass a handle or a URN"),
    (lambda: get_order("the last one"), "Pass a handle or a URN"),
    (
        lambda: wait_for_jobs(Job(urn="urn:ivcap:job:1", platform="p", service="urn:ivcap:service:1")),
        "`jobs` of `wait_for_jobs` is a list: pass `jobs=[…]`, not Job alone",
    ),
    (lambda: wait_for_orders("urn:ivcap:order:1"), "not 'urn:ivcap:order:1' alone"),
    (lambda: wait_or_park("urn:ivcap:order:1"), "`work` of `wait_or_park` is a list"),
    (lambda: wait_or_park(None), "`work` of `wait_or_park` is a list", "not NoneType alone"),
    (lambda: search(""), "query"),
    (lambda: upload_artifact("nowhere.csv"), "nowhere.csv cannot be read: No such file"),
    (lambda: upload_artifact("."), "is a folder: upload it with upload_directory"),
    (lambda: upload_artifact(io.StringIO("text")), "must give bytes, not str"),
    (lambda: upload_artifact(["text"]), "must give bytes, not str"),
    (lambda: upload_artifact(7), "Pass a path, bytes, a binary stream"),
    (lambda: upload_artifact(b"bytes", side_car=True), "pass a path"),
    (lambda: register_item({"display_name": "reef"}), "statement of ivcap_flows.provena.models", "not dict"),
    (lambda: register_dataset({"dataset_info": {}}), "Pass a CollectionFormat", "not dict"),
    (lambda: place_order("echo", {"message": FOREIGN}), *FOREIGN_SAID),
    (lambda: request_job("echo", {"nested": [{"message": FOREIGN}]}), *FOREIGN_SAID),
    (lambda: attach_aspect(FOREIGN, {"$schema": "urn:example:schema:foreign.1"}), *FOREIGN_SAID),
    (lambda: download_artifact(FOREIGN, "back"), *FOREIGN_SAID),
    (lambda: wait_for_orders([FOREIGN]), *FOREIGN_SAID),
    (lambda: add_to_collection(Collection(urn="urn:c", platform=FOREIGN.platform), THING), *FOREIGN_SAID),
    (lambda: read_item(RegistryItem(urn="1", platform=FOREIGN.platform, subtype="MODEL")), *FOREIGN_SAID),
]


SEVERAL = sorted(
    (verb, parameter)
    for noun in (tasks.ivcap, tasks.provena)
    for verb in noun.__all__
    if isinstance(task := getattr(noun, verb), Task)
    for parameter, kind in task.fn.__annotations__.items()
    if str(kind).startswith(("Sequence", "Iterable", "Collection[", "list", "tuple", "set")) and parameter != "return"
)


def test_what_takes_several_texts_takes_none_alone(embedded_platform, ivcap_journal):
    """A text would be a list of its characters. Each parameter of a task that takes several says so, whatever stands
    beside it, and so do steps, blocks and clients. A list of other things than texts is none of texts either."""
    assert {("place_order", "tags"), ("a_wait_for_jobs", "jobs")} <= set(SEVERAL)
    wrong = [(lambda verb=verb, name=name: ALL[verb].fn(**{name: "survey"})) for verb, name in SEVERAL]
    for call in (
        *wrong,
        lambda: place_order("echo", {}, tags={"survey": 1}),
        lambda: place_order("echo", {}, tags=b"survey"),
        lambda: place_order("echo", {}, tags=None),
        lambda: tasks.OrderStep("echo", tags="survey"),
        lambda: tasks.run_order("echo", {"message": "m"}, tags="survey"),
        lambda: IvcapService(service="echo", parameters={"message": "m"}).trigger(tags="survey"),
        lambda: BaseUrl("https://example.org", "IVCAP", trusted_hosts="example.org"),
        lambda: loop.run(Orders(None).place("urn:ivcap:service:1", {}, tags="survey")),
    ):
        with pytest.raises(InputError, match=r"is a list: pass `\w+=\[…\]`, not .* alone\."):
            result = call()
            asyncio.run(result)
    with pytest.raises(InputError, match="`tags` of `place_order` are texts, not int"):
        place_order("echo", {}, tags=["survey", 2])


def test_values_that_make_no_sense(effects, tasks_service):
    """A wrong value is an error that quotes it, and a handle of another platform is not sent there. Of a request, one
    error names all that is missing, mistyped and unknown."""
    for wrong, *words in NONSENSE:
        with pytest.raises(InputError) as caught:
            wrong()
        assert [each for each in words if each not in str(caught.value)] == [], caught.value
        assert isinstance(caught.value, ForeignHandleError) == (FOREIGN.platform in words[0])
    assert wait_for_orders([]) == []
    assert [request for request in writes(effects) if not request["path"].endswith("/token")] == []


def echo():
    return place_order("echo", {"message": "?"})


NOWHERE = "http://127.0.0.1:9"
NOT_ACCEPTED = "Check that the token is set.*has not expired"
SETTINGS = {
    "no way to IVCAP": (
        {"IVCAP_URL": NOWHERE},
        (echo, UnreachableError, r"IVCAP at http://127\.0\.0\.1:9 .*Check the URL"),
    ),
    "no way to Provena": (
        {"PROVENA_KEYCLOAK": NOWHERE, "PROVENA_REGISTRY_API": NOWHERE},
        (linked_person, UnreachableError, r"http://127\.0\.0\.1:9.*Check the URL"),
    ),
    "an expired token": ({"IVCAP_JWT": "{IVCAP_JWT_EXPIRED}"}, (echo, NotAuthorizedError, NOT_ACCEPTED)),
    "a made up token": ({"IVCAP_JWT": "no-token-at-all"}, (echo, NotAuthorizedError, NOT_ACCEPTED)),
    "a changed token": ({"IVCAP_JWT": "{IVCAP_JWT}AAAA"}, (echo, NotAuthorizedError, NOT_ACCEPTED)),
    "a made up offline token": (
        {"PROVENA_OFFLINE_TOKEN": "no-token-at-all"},
        (linked_person, (NotAuthorizedError, ConfigurationError), "[Ll]og in|offline token"),
    ),
    "a URL without a token": (
        {"IVCAP_JWT": None, "PROVENA_DOMAIN": None},
        (echo, ConfigurationError, "IVCAP_JWT is not"),
    ),
    "a token without a URL": (
        {"IVCAP_URL": None, "PROVENA_DOMAIN": None},
        (echo, ConfigurationError, "IVCAP_URL is not"),
    ),
    "IVCAP alone": ({"PROVENA_": None}, (linked_person, PlatformOffError, "Provena is off.*PROVENA_DOMAIN")),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_do_not_work(effects, monkeypatch, case):
    """After a bounded time, the error says what to check. It does not show the token, and half of the settings do not
    lead to the embedded platform."""
    variables, (work, error, words) = SETTINGS[case]
    for start, value in variables.items():
        given = None if value is None else value.format_map(os.environ)
        for name in [name for name in os.environ if name.startswith(start)]:
            monkeypatch.delenv(name) if given is None else monkeypatch.setenv(name, given)
    with pytest.raises(error, match=words) as caught:
        work()
    told = f"{caught.value} {caught.value.data}"
    assert not [
        token for name in ("IVCAP_JWT", "PROVENA_OFFLINE_TOKEN") if (token := os.environ.get(name)) and token in told
    ]
    if error is UnreachableError:
        assert caught.value.retryable and caught.value.sent is False
    if error is NotAuthorizedError:
        assert not caught.value.retryable and caught.value.status == 401
    assert effects.intents("order") == []


def test_a_service_that_the_embedded_platform_lacks(embedded_platform, ivcap_journal, monkeypatch):
    """The error says that it is the embedded one, where its state lies, and how a service gets there."""
    for name in list(os.environ):
        if name.startswith(("IVCAP_URL", "IVCAP_JWT", "PROVENA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_LOCAL_DIR", str(embedded_platform._embedded.directory))
    for service in ("ecko", "urn:ivcap:service:00000000-0000-4000-8000-000000000000"):
        with pytest.raises((InputError, NotFoundError)) as caught:
            place_order(service, {})
        place = str(embedded_platform._embedded.directory)
        for said in (place, "ivcap-flows local register", "IVCAP_LOCAL_DIR", "IVCAP_URL"):
            assert said in str(caught.value)


def test_a_token_that_expires_during_a_wait(effects, unique):
    """A wait whose token expires ends at once with the next step. The order continues and can be waited for again."""
    order = place_order("echo", {"message": unique})
    effects.embedded.add_fault(method="GET", path="^/1/orders/", count=1, expire_token=True)
    with pytest.raises(NotAuthorizedError, match="has not expired"):
        wait_for_orders([order], timeout=60)
    assert wait_for_orders([place_order("echo", {"message": unique})], timeout=60)[0].succeeded
    assert effects.count("/1/orders") == 1


def test_a_journal_that_cannot_be_used(embedded_platform, tmp_path, monkeypatch):
    """Without its journal a task sends nothing. The error names the file and the next step."""
    (tmp_path / "file").write_text("no database at all, but a text of some length " * 50)
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / 'file'}")
    with pytest.raises(JournalError, match=r"The journal sqlite:.*cannot be opened.*IVCAP_FLOWS_JOURNAL"):
        echo()
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
def test_a_full_disk(effects, tmp_path):
    """A download that does not fit is an error with the next step, and leaves no file."""
    big, folder = tmp_path / "big.bin", tmp_path / "full"
    big.write_bytes(os.urandom(3 * 1024 * 1024))
    folder.mkdir()
    series = upload_artifact(big)
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


@pytest.mark.catches("arguments unchecked")
def test_a_text_or_path_that_nothing_can_hold_is_refused_by_every_task(effects):
    """Half a surrogate pair, and a NUL in a path: the error names the argument, and nothing is sent."""
    done, count = len(effects.embedded.requests()), 0
    for verb in (name for name, task in ALL.items() if isinstance(task, Task)):
        function = ALL[verb].fn
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
