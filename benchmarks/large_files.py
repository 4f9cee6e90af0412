"""12 archives that are unpacked and 12 uploads, of 1 GiB each, at once, by the name of a host; and what is asked then.

None of them fails. Beside them, the list of services and a commit of the journal, again and again: their medians
against the same while nothing else is under way. Each request takes 50 ms at the platform. The platform's bytes are in
memory where the machine has `/dev/shm`, the journal on the disk: what the platform writes does not hold up the
journal's commits. `--mib` makes the files smaller.
"""

from __future__ import annotations

import argparse
import os
import tarfile
import tempfile
from pathlib import Path

from benchmarks.measure import python, report, steered_platform

AT_ONCE = 12
MIB = 1024
LATENCY = 0.05
LIMIT = 3.0

OURS = """
import asyncio, json, statistics, sys, time
from pathlib import Path
from ivcap_flows.capture import journal
from ivcap_flows.tasks import alist_services, auntar_artifact, aupload_artifact

folder = Path(sys.argv[1])
kept = journal()
said = {}

async def ask(phase):
    for name, call in (("list_services", alist_services.fn), ("journal", lambda: kept.ask(kept.processes.announce))):
        begin = time.perf_counter()
        await call()
        said.setdefault(name, {}).setdefault(phase, []).append(time.perf_counter() - begin)

async def main():
    archive = await aupload_artifact.fn(folder / "archive.tar")
    for _ in range(40):
        await ask("alone")
    begin = time.perf_counter()
    work = [auntar_artifact.fn(archive, folder / f"unpacked {path.stem}") for path in folder.glob("*.bin")]
    work += [aupload_artifact.fn(path) for path in folder.glob("*.bin")]
    working = [asyncio.create_task(each) for each in work]
    while not all(each.done() for each in working):
        await ask("beside")
        await asyncio.sleep(0.05)
    failed = [repr(each.exception())[:300] for each in working if each.exception()]
    seconds = time.perf_counter() - begin
    milliseconds = {
        name: {phase: round(1000 * statistics.median(taken), 2) for phase, taken in phases.items()}
        for name, phases in said.items()
    }
    print(json.dumps({"seconds": seconds, "failed": failed, "milliseconds": milliseconds}))

asyncio.run(main())
"""


def make_files(folder: Path, mib: int) -> None:
    """Each with bytes of its own at its beginning, and an archive of such a file."""
    for number in range(AT_ONCE + 1):
        with (folder / f"{number}.bin").open("wb") as file:
            file.write(os.urandom(64))
            file.truncate(mib * 1024 * 1024)
    member = folder / f"{AT_ONCE}.bin"
    with tarfile.open(folder / "archive.tar", "w") as archive:
        archive.add(member, "member.bin")
    member.unlink()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=MIB)
    mib = parser.parse_args().mib
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with steered_platform(memory) as (environment, control), tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), mib)
        control.add_fault(delay=LATENCY)
        by_name = environment["IVCAP_URL"].replace("127.0.0.1", "localhost")
        mine = {"IVCAP_URL": by_name, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder}/journal.sqlite"}
        found = python(OURS, folder, env=environment | mine)
    if found["failed"]:
        raise RuntimeError(f"{len(found['failed'])} of {2 * AT_ONCE} failed: {found['failed'][0]}")
    ratios = {name: round(of["beside"] / of["alone"], 2) for name, of in found["milliseconds"].items()}
    report(
        "large_files",
        max(ratios.values()),
        limit=LIMIT,
        ratios=ratios,
        milliseconds=found["milliseconds"],
        seconds=round(found["seconds"], 1),
        files=2 * AT_ONCE,
        mib=mib,
        latency_ms=1000 * LATENCY,
    )


if __name__ == "__main__":
    main()
