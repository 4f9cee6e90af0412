"""Services written with the official SDKs, in environments of their own, on an embedded IVCAP for all their tests."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from eventually import until
from other_processes import stop
from peers import interpreter

from ivcap_flows import local

HERE = Path(__file__).parent
KINDS = {"batch": ("ivcap-service", "batch_words.py"), "lambda": ("ivcap-ai-tool", "lambda_words.py")}
TERMINAL = {"succeeded", "failed", "error"}


class Bench:
    """One state folder, its server, and the services registered there by kind, each when it is first asked for."""

    def __init__(self, root):
        self.root, self._services = root, {}
        embedded = local.ensure(self.root, idle=3600)
        token = embedded.environment["IVCAP_JWT"]
        self.http = httpx.Client(base_url=embedded.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def end(self):
        self.http.close()
        stop(psutil.Process(json.loads((self.root / "server.json").read_text())["pid"]))

    def register(self, kind):
        """Have the service describe itself, and register what it printed."""
        peer, source = KINDS[kind]
        python = interpreter(peer)
        files = {}
        for what in ("service", "tool"):
            command = [str(python), "-W", "ignore", source, f"--print-{what}-description"]
            printed = subprocess.run(command, cwd=HERE / "services", check=True, capture_output=True, timeout=60).stdout
            files[what] = self.root.parent / f"{kind}-{what}.json"
            files[what].write_bytes(printed)
        run = f"{python} -W ignore {source}"
        command = [sys.executable, "-m", "ivcap_flows.cli", "local", "register", str(files["service"])]
        command += ["--tool", str(files["tool"]), "--run", run, "--cwd", str(HERE / "services")]
        done = subprocess.run([*command, "--dir", str(self.root)], check=True, capture_output=True, timeout=60)
        return done.stdout.decode().strip()

    def service(self, kind):
        if kind not in self._services:
            self._services[kind] = self.register(kind)
        return self._services[kind]

    def get(self, path, **query):
        reply = self.http.get(path, params=query)
        assert reply.status_code == 200, f"{path}: {reply.status_code} {reply.text[:300]}"
        return reply.json()

    def upload(self, data):
        headers = {"X-Content-Length": str(len(data)), "X-Name": "in.txt", "X-Content-Type": "text/plain"}
        made = self.http.post("/1/artifacts", headers=headers).json()
        chunk = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        self.http.patch(f"/1/artifacts/{made['id']}/blob", content=data, headers=chunk).raise_for_status()
        return made["id"]

    def request(self, kind, **request):
        path = f"/1/services2/{self.service(kind)}/jobs"
        reply = self.http.post(path, json=request)
        assert reply.status_code == 202, reply.text
        return f"{path}/{reply.json()['job-id']}"

    def until(self, path, *statuses, seconds=60):
        job = until(lambda: self.get(path), lambda job: job["status"] in TERMINAL.union(statuses), seconds)
        assert job["status"] in (statuses or TERMINAL), job
        return job

    def aspects(self, **query):
        return self.get("/1/aspects", **{"include-content": "true", "limit": 50, **query})["items"]


@pytest.fixture(scope="session")
def sdk_bench(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("sdk") / "embedded")
    yield bench
    bench.end()
    # The host of a service does not outlive the server.
    until(lambda: not any(str(bench.root) in str(one.info["cmdline"]) for one in psutil.process_iter(["cmdline"])))
