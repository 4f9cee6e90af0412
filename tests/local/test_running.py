"""Running jobs: which processes remain after a kill, which results are accepted, and what is reported meanwhile."""

import json
import os
import shutil
import signal
import sys

import psutil
import pytest

from ivcap_flows.local.register import register


@pytest.fixture
def command_of(tmp_path):
    """Register a program, given as text, as a service of a home."""

    def make(home, name, program):
        (tmp_path / f"{name}.py").write_text(program)
        definition = {"name": name, "command": [sys.executable, str(tmp_path / f"{name}.py")]}
        return register(home.url, home.environment["IVCAP_JWT"], definition, tmp_path / "x.yaml")

    return make


POST = """
import json, os, time, urllib.request
base = os.environ["IVCAP_BASE_URL"]
def post(body, kind="application/json", failed="False"):
    headers = {"Content-Type": kind, "Is-Error": failed}
    urllib.request.urlopen(urllib.request.Request(base + "/results/" + job["id"], body, headers))
job = json.load(urllib.request.urlopen(base + "/next_job"))
"""


@pytest.mark.parametrize(
    ("ending", "status", "said"),
    [
        ("import signal; os.kill(os.getpid(), signal.SIGKILL)", "error", "signal 9"),
        ("raise SystemExit(3)", "failed", "exit status 3"),
        *(
            pytest.param(ending, "failed", said, marks=pytest.mark.long)
            for ending, said in (
                ("post(b'[1, NaN]')", "not valid JSON"),
                ("""post(b'{"$schema":"urn:ivcap:schema.service.error.1","error":"told"}')""", "told"),
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
            r"""post(b'{"$schema":"urn:ivcap:schema.service.error.1","error":"no \udce9.txt"}')""",
            "failed",
            "no ?.txt",
            marks=pytest.mark.long,
        ),
        pytest.param(
            """urllib.request.urlopen(base + '/events/' + job['id'], rb'{"$schema":"urn:x:\\ud800"}')
post(b'{}')""",
            "error",
            "cannot be stored",
            marks=pytest.mark.long,
        ),
    ],
)
def test_half_a_character_holds_up_no_other_job(local_home, command_of, ending, status, said):
    """JSON may escape half a surrogate pair, which is no text. Such a job ends with an error, and the next one runs."""
    caller = local_home.start().caller()
    order = caller.finished(caller.order(command_of(local_home, "half", POST + ending)))
    assert order["status"] == status and said in caller.job_of(order)["error-message"]
    assert caller.finished(caller.order("sleep", seconds="0"))["status"] == "succeeded"


@pytest.mark.long
def test_a_command_does_not_outlive_its_killed_runner(local_home, command_of, eventually):
    """The job becomes an error, and the process of the service is ended."""
    caller = local_home.start().caller()
    service = command_of(local_home, "stays", "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    order = caller.order(service)
    path = f"/1/orders/{order['id']}/logs"
    pid = int(eventually(lambda: caller.call("GET", path).text.strip(), bool))
    (runner,) = local_home.runners()
    os.kill(runner, signal.SIGKILL)
    assert caller.finished(order)["status"] == "error"
    eventually(lambda: psutil.pid_exists(pid), lambda there: not there)


@pytest.mark.long
def test_a_result_is_taken_in_once_wherever_the_server_was_killed(local_home, eventually):
    """The server may be killed before products are moved, before they are recorded, or before the cleanup."""
    caller = local_home.start().caller()
    order = caller.order("sleep", seconds="1")
    eventually(lambda: caller.get(f"/1/orders/{order['id']}")["status"], lambda status: status == "executing")
    job = caller.job_of(order)["id"].rsplit(":", 1)[-1]
    local_home.kill()
    left = local_home.root / "outbox" / f"{job}.json"
    eventually(left.exists, bool)
    bare = "11111111-0000-4000-8000-000000000000"
    record = json.loads(left.read_text())
    record["products"] = [
        {"id": bare, "name": "p", "media_type": "text/plain", "size": 1, "sha256": "0" * 64, "is_result": False}
    ]
    left.write_text(json.dumps(record))
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
    eventually(left.exists, lambda there: not there)
    again = caller.get(f"/1/orders/{order['id']}")
    assert [one["id"] for one in again["products"]["items"]] == [product["id"]] and again["status"] == "succeeded"
    (made,) = caller.aspects(entity=order["id"], schema="urn:ivcap:schema:order-produced-artifact.1")
    assert made["content"]["artifact"] == product["id"]


def test_many_events_at_once_all_arrive(first, local_platform, command_of):
    """More events than are read at a time, written right before the end, all arrive."""
    program = POST + (
        "for n in range(3):\n"
        "    body = json.dumps({'name': str(n), 'options': {'pad': 'x' * 700_000}}).encode()\n"
        "    urllib.request.urlopen(urllib.request.Request(base + '/events/' + job['id'], body))\n"
        "post(b'{}')\n"
    )
    order = first.finished(first.order(command_of(local_platform, "talks", program)))
    assert order["status"] == "succeeded", first.call("GET", f"/1/orders/{order['id']}/logs").text
    path = f"/1/services2/{order['service']}/jobs/{first.job_of(order)['id']}/events"
    told = [json.loads(line[6:])["data"].get("name") for line in first.call("GET", path).text.splitlines()[1::3]]
    assert [name for name in told if name] == ["0", "1", "2"]


@pytest.mark.long
def test_a_log_is_cut_to_the_seconds_that_are_asked_for(first, local_platform, command_of):
    """`from` and `to` are whole seconds, both included. The text is as the service wrote it."""
    program = POST + "print(time.time(), flush=True)\ntime.sleep(3)\nprint(time.time(), flush=True)\npost(b'{}')\n"
    order = first.finished(first.order(command_of(local_platform, "writes", program)))

    def log(**window):
        return first.call("GET", f"/1/orders/{order['id']}/logs", params=window).text

    early, late = log().splitlines(keepends=True)
    second = int(float(late))
    assert log(**{"from": second}) == late and log(to=second - 1) == early
    assert log(**{"from": int(float(early)), "to": second + 60}) == early + late
    assert log(to=int(float(early)) - 1) == log(**{"from": second + 60}) == ""


def test_what_a_running_job_uses_is_told_in_texts(first, eventually):
    """A running job has one container with its usage. Before and after there is none."""
    order = first.order("sleep", seconds="1.5")
    path = f"/1/orders/{order['id']}/top"
    (container,) = eventually(lambda: first.get(path), bool)
    assert container["container"].startswith("sleep-")
    assert int(container["memory"].removesuffix("Mi")) > 5 and container["cpu"].endswith("m")
    assert container["storage"] == container["ephemeral-storage"] == "0Ki"
    first.finished(order)
    assert first.get(path) == []
