"""Running jobs: what a kill of the server or of a runner leaves, which results are accepted, and what is reported
meanwhile. Acknowledged work survives."""

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import sqlite3
import time
import uuid
from types import SimpleNamespace

import httpx
import psutil
import pytest
from eventually import auntil, until

from ivcap_flows.local import clock
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.ivcap.jobs.dispatch import Dispatcher
from ivcap_flows.local.services.plans import NoPlan

POST = """
import json, os, time, urllib.request
base = os.environ["IVCAP_BASE_URL"]
def post(body, kind="application/json", failed="False"):
    headers = {"Content-Type": kind, "Is-Error": failed}
    urllib.request.urlopen(urllib.request.Request(base + "/results/" + job["id"], body, headers))
job = json.load(urllib.request.urlopen(base + "/next_job"))
"""
SERVICE_ERROR = "urn:ivcap:schema.service.error.1"


@pytest.mark.parametrize(
    ("ending", "status", "said"),
    [
        ("import signal; os.kill(os.getpid(), signal.SIGKILL)", "error", "signal 9"),
        ("raise SystemExit(3)", "failed", "exit status 3"),
        *(
            pytest.param(ending, "failed", said, marks=pytest.mark.long)
            for ending, said in (
                ("post(b'[1, NaN]')", "not valid JSON"),
                (f"""post(b'{{"$schema":"{SERVICE_ERROR}","error":"told"}}')""", "told"),
                ("""post(b'{"$schema":"s","error":"","type":"KeyError"}', failed="True")""", "KeyError"),
                ("post(b'plain words', 'text/plain', 'True')", "plain words"),
            )
        ),
    ],
)
def test_how_a_command_ends_is_how_its_job_ends(first, local_platform, command_of, ending, status, said):
    """An interruption from outside is an `error`, and a failure of the service is `failed` with its own message."""
    order = first.finished(first.order(command_of(local_platform, "ending", POST + ending)))
    assert order["status"] == status and said in first.job_of(order)["error-message"]


@pytest.mark.parametrize(
    ("ending", "status", "said"),
    [
        (r"""post(b'{"$schema":"urn:x:\ud800"}')""", "error", "cannot be stored"),
        pytest.param(
            rf"""post(b'{{"$schema":"{SERVICE_ERROR}","error":"no \udce9.txt"}}')""",
            *("failed", "no ?.txt"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            """urllib.request.urlopen(base + '/events/' + job['id'], rb'{"$schema":"urn:x:\\ud800"}')
post(b'{}')""",
            *("error", "cannot be stored"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_half_a_character_holds_up_no_other_job(local_platform, first, command_of, ending, status, said):
    """JSON may escape half a surrogate pair, which is no text. Such a job ends with an error, and the next one runs."""
    order = first.finished(first.order(command_of(local_platform, "half", POST + ending)))
    assert order["status"] == status and said in first.job_of(order)["error-message"]
    assert first.finished(first.order("sleep", seconds="0"))["status"] == "succeeded"


def test_many_events_at_once_all_arrive(first, local_platform, command_of):
    """More events than are read at a time, written right before the end, all arrive."""
    program = POST + (
        "for n in range(3):\n"
        "    body = json.dumps({'name': str(n), 'options': {'pad': 'x' * 700_000}}).encode()\n"
        "    urllib.request.urlopen(urllib.request.Request(base + '/events/' + job['id'], body))\n"
        "post(b'{}')\n"
    )
    order = first.finished(first.order(command_of(local_platform, "talks", program)))
    assert order["status"] == "succeeded", first.log_of(order)
    path = f"/1/services2/{order['service']}/jobs/{first.job_of(order)['id']}/events"
    told = [json.loads(line[6:])["data"].get("name") for line in first.call("GET", path).text.splitlines()[1::3]]
    assert [name for name in told if name] == ["0", "1", "2"]


class Growing(io.RawIOBase):
    """A file whose rest is written when somebody has read to its end."""

    def __init__(self, whole, there):
        self._whole, self._there, self._at = whole, there, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        assert whence == io.SEEK_SET
        self._at = offset
        return offset

    def readinto(self, buffer):
        block = self._whole[self._at : self._there][: len(buffer)]
        buffer[: len(block)] = block
        self._at += len(block)
        if not block:
            self._there = len(self._whole)
        return len(block)


@pytest.mark.parametrize("there", range(0, 55, 6))
def test_an_event_that_is_just_being_told_is_taken_whole(there):
    """An event that is read while it is being written becomes one event."""
    told = [{"name": name} for name in ("first", "second", "third")]
    whole = b"".join(json.dumps(one).encode() + b"\n" for one in told)
    files = iter([Growing(whole, there), Growing(whole, len(whole))])
    taken, upto = [], 0

    class Folder:
        def __truediv__(self, name):
            return SimpleNamespace(open=lambda mode: io.BufferedReader(next(files)))

    def take_events(job, events, read):
        nonlocal upto
        taken.extend(events)
        upto = read

    dispatcher = object.__new__(Dispatcher)
    dispatcher._platform = SimpleNamespace(jobs=SimpleNamespace(take_events=take_events))
    for _ in range(2):
        dispatcher._take_events({"id": "urn:ivcap:job:1", "events_read": upto}, Folder())
    assert taken == told and upto == len(whole)


def test_a_job_whose_end_cannot_be_stored_holds_up_no_other(tmp_path, caplog, monkeypatch):
    """Whether it runs or waits. It is tried again."""
    directory, ended = Directory(tmp_path), []
    directory.prepare()
    jobs = [f"urn:ivcap:job:{uuid.uuid4()}" for _ in range(4)]
    for job in jobs[:2]:
        directory.run(job).mkdir()
        (directory.run(job) / "started").touch()

    def finish(job, outcome):
        if job in jobs[::2]:
            raise sqlite3.OperationalError("disk I/O error")
        ended.append(job)

    rows = [
        {"id": job, "status": status, "service": "s", "events_read": 0}
        for job, status in zip(jobs, ["executing", "executing", "pending", "pending"], strict=True)
    ]
    table = SimpleNamespace(active=lambda: rows, advance=lambda job, status: None, finish=finish)
    dispatcher = Dispatcher(SimpleNamespace(directory=directory, jobs=table, likeness=SimpleNamespace(start=0)))
    monkeypatch.setattr(dispatcher, "_plan", lambda service: NoPlan("The service is gone."))
    assert dispatcher.step() == 4 and ended == jobs[1::2]
    assert [record.args for record in caplog.records] == [(job,) for job in jobs[::2]]


async def test_the_state_thread_is_left_to_requests(tmp_path, caplog):
    """A slow round over the jobs runs rarely, and takes about a tenth of the time."""
    looks = []

    def active():
        looks.append(time.monotonic())
        time.sleep(0.05)
        # It waits for its start, as on a platform that is like production.
        return [{"id": "urn:ivcap:job:1", "status": "pending", "service": "s", "requested_at": clock.now()}]

    platform = SimpleNamespace(
        directory=Directory(tmp_path),
        thread=SimpleNamespace(run=asyncio.to_thread),
        jobs=SimpleNamespace(active=active),
        likeness=SimpleNamespace(start=3600),
    )
    rounds = asyncio.create_task(Dispatcher(platform).run())
    await auntil(lambda: len(looks) > 1)
    rounds.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await rounds
    # A slow machine makes a round longer, and so the pause after it.
    assert looks[1] - looks[0] >= 0.45 and not caplog.records


@pytest.mark.long
def test_a_log_is_cut_to_the_seconds_that_are_asked_for(first, local_platform, command_of, tmp_path):
    """`from` and `to` are whole seconds, both included. The text is as the service wrote it."""
    later = tmp_path / "later"
    wait = f"while not os.path.exists({str(later)!r}): time.sleep(0.05)\n"
    program = f"{POST}print(time.time(), flush=True)\n{wait}print(time.time(), flush=True)\npost(b'{{}}')\n"
    order = first.order(command_of(local_platform, "writes", program))

    def log(**window):
        return first.call("GET", f"/1/orders/{order['id']}/logs", params=window).text

    until(log)
    time.sleep(2)
    later.touch()
    first.finished(order)
    early, late = log().splitlines(keepends=True)
    second = int(float(late))
    assert log(**{"from": second}) == late and log(to=second - 1) == early
    assert log(**{"from": int(float(early)), "to": second + 60}) == early + late
    assert log(to=int(float(early)) - 1) == log(**{"from": second + 60}) == ""


def test_what_a_running_job_uses_is_told_in_texts(local_platform, first, command_of, tmp_path):
    """A running job has one container with its usage. Before and after there is none."""
    enough = tmp_path / "enough"
    program = POST + f"while not os.path.exists({str(enough)!r}): time.sleep(0.05)\npost(b'{{}}')\n"
    order = first.order(command_of(local_platform, "lasts", program))
    path = f"/1/orders/{order['id']}/top"
    (container,) = until(lambda: first.get(path))
    enough.touch()
    assert container["container"].startswith("lasts-")
    assert int(container["memory"].removesuffix("Mi")) > 5 and container["cpu"].endswith("m")
    assert container["storage"] == container["ephemeral-storage"] == "0Ki"
    first.finished(order)
    assert first.get(path) == []


def test_a_killed_runner_is_an_error_and_its_command_ends(local_platform, first, command_of):
    """If a runner leaves no result, its order ends as `error`, with a message on the job, and no process stays."""
    service = command_of(local_platform, "stays", "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    order = first.order(service)
    pid = int(until(lambda: first.log_of(order).strip()))
    (runner,) = until(local_platform.runners, lambda living: len(living) == 1)
    os.kill(runner, signal.SIGKILL)
    done = first.finished(order)
    assert done["status"] == "error" and "killed" in first.job_of(done)["error-message"]
    until(lambda: psutil.pid_exists(pid), lambda there: not there)


@pytest.mark.long
def test_a_result_is_taken_in_once_wherever_the_server_was_killed(local_home):
    """The server may be killed before products are moved, before they are recorded, or before the cleanup."""
    caller = local_home.start().caller()
    order = caller.order("sleep", seconds="1")
    caller.executing(order)
    job = caller.job_of(order)["id"].rsplit(":", 1)[-1]
    local_home.kill()
    left = local_home.root / "outbox" / f"{job}.json"
    until(left.exists)
    bare = "11111111-0000-4000-8000-000000000000"
    product = {"id": bare, "name": "p", "media_type": "text/plain", "size": 1, "sha256": "0" * 64, "is_result": False}
    left.write_text(json.dumps(json.loads(left.read_text()) | {"products": [product]}))
    kept = local_home.root.parent / "kept.json"
    shutil.copy(left, kept)
    # As if the last server had moved the bytes and gone no further.
    (local_home.root / "blobs" / "11").mkdir()
    (local_home.root / "blobs" / "11" / bare).write_bytes(b"x")
    caller = local_home.start().caller()
    (product,) = caller.finished(order)["products"]["items"]
    assert product["id"] == f"urn:ivcap:artifact:{bare}" and caller.bytes_of(bare) == b"x"
    local_home.kill()
    # As if it had recorded everything and not cleaned up.
    shutil.copy(kept, left)
    caller = local_home.start().caller()
    until(left.exists, lambda there: not there)
    again = caller.get(f"/1/orders/{order['id']}")
    assert [one["id"] for one in again["products"]["items"]] == [product["id"]] and again["status"] == "succeeded"
    (made,) = caller.aspects(entity=order["id"], schema="urn:ivcap:schema:order-produced-artifact.1")
    assert made["content"]["artifact"] == product["id"]


@pytest.mark.long
def test_bytes_acknowledged_in_a_long_upload_survive_a_kill(local_home):
    """After a kill in the middle of a body, the upload continues from the offset to the same bytes."""
    caller = local_home.start().caller()
    data = os.urandom(1 << 20)
    artifact = caller.create(4 << 20)
    caller.patch(artifact, data, 0)

    def half():
        yield data
        yield data[: 1 << 19]
        local_home.kill()
        yield data

    headers = {"Upload-Offset": str(1 << 20), "Content-Type": "application/offset+octet-stream"}
    with contextlib.suppress(httpx.TransportError):
        caller.http.patch(f"/1/artifacts/{artifact['id']}/blob", content=half(), headers=headers)
    caller = local_home.start().caller()
    at = caller.offset(artifact)
    assert at >= 1 << 20
    caller.patch(artifact, (data * 4)[at:], at)
    assert caller.bytes_of(artifact["id"]) == data * 4
