"""Uploads are sent once and resumed, downloads are verified, and nothing incomplete is taken for complete."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ivcap_flows import task
from ivcap_flows.capture import use_journal
from ivcap_flows.capture.files import urn_at
from ivcap_flows.errors import (
    InputError,
    IntegrityError,
    NotAuthorizedError,
    SourceChangedError,
    UnavailableError,
)
from ivcap_flows.handles import LocalFile
from ivcap_flows.http import tus
from ivcap_flows.identity import digest
from ivcap_flows.journal import Journal
from ivcap_flows.sinks import run_graph
from ivcap_flows.tasks import download_artifact, place_order, upload_artifact, wait_for_orders

MIB = 1024 * 1024


TROUBLE = [({"status": 503}, UnavailableError), ({"expire_token": True}, NotAuthorizedError)]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """Five chunks of a small chunk size."""
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(5 * MIB))
    return path


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 1 MiB, so that a file of a few has several."""
    monkeypatch.setitem(tus.send.__kwdefaults__, "chunk", MIB)


def sent(effects) -> int:
    """Bytes of content that reached the platform."""
    return sum(r["received"] for r in effects.embedded.requests("PATCH"))


def test_the_same_content_is_not_sent_again(in_flow, effects, source, tmp_path):
    """Content that was uploaded before is not sent again by another run, name or journal."""
    copy = tmp_path / "copy.csv"
    copy.write_bytes(source.read_bytes())
    first = in_flow(lambda: upload_artifact(source))
    assert sent(effects) == source.stat().st_size
    assert (first.sha256, first.size) == (digest(source.read_bytes()), source.stat().st_size)
    assert in_flow(lambda: [upload_artifact(source), upload_artifact(copy)]) == [first, first]
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        assert in_flow(lambda: upload_artifact(copy)).urn == first.urn
    assert sent(effects) == source.stat().st_size
    assert effects.count("/1/artifacts") == 1


def test_what_makes_another_artifact(in_flow, effects, source):
    """Equal bytes under another media type or policy are another artifact, as the platform sees it."""

    def body():
        plain = upload_artifact(source)
        typed = upload_artifact(source, media_type="text/plain")
        shared = upload_artifact(source, policy="urn:ivcap:policy:ivcap.open.artifact")
        return plain, typed, shared

    plain, typed, shared = in_flow(body)
    assert len({plain.urn, typed.urn, shared.urn}) == 3
    assert (plain.media_type, typed.media_type) == ("text/csv", "text/plain")
    assert shared.policy == "urn:ivcap:policy:ivcap.open.artifact"


def test_an_empty_file(in_flow, effects, tmp_path):
    """A file without bytes is uploaded and comes back without bytes."""
    (tmp_path / "empty.txt").touch()

    def body():
        return download_artifact(upload_artifact(tmp_path / "empty.txt"), tmp_path / "back.txt")

    assert in_flow(body).size == 0
    assert (tmp_path / "back.txt").read_bytes() == b""


@pytest.mark.parametrize(
    "fault", [{"reset": True}, {"drop_reply_after_effect": True}, {"truncate": 0}, {"status": 503}]
)
def test_an_upload_goes_on_where_the_platform_stands(in_flow, effects, big, small_chunks, fault):
    """A connection that breaks in the middle of an upload costs at most one chunk, and one artifact is made."""
    effects.embedded.add_fault(method="PATCH", path="/1/artifacts", count=2, delay=0.0)
    effects.embedded.add_fault(method="PATCH", path="/1/artifacts", count=1, **fault)
    uploaded = in_flow(lambda: upload_artifact(big))
    assert effects.count("/1/artifacts") == 1
    assert big.stat().st_size <= sent(effects) <= big.stat().st_size + MIB
    assert len(effects.embedded.requests("PATCH")) <= 6
    assert uploaded.sha256 == digest(big.read_bytes())


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(*TROUBLE[0], id="unavailable", marks=pytest.mark.long),
        pytest.param(*TROUBLE[1], id="expired token"),
    ],
)
def test_the_next_run_goes_on_with_an_upload(in_flow, effects, big, small_chunks, tmp_path, fault, error):
    """An upload that a run gave up is continued by the next run. Its first chunks are not sent again."""
    effects.embedded.add_fault(method="PATCH", path="/1/artifacts", count=3, delay=0.0)
    effects.embedded.add_fault(method="PATCH", path="/1/artifacts", **fault)
    with pytest.raises(error):
        in_flow(lambda: upload_artifact(big))
    effects.embedded.clear_faults()
    before = sum(r["received"] for r in effects.embedded.requests("PATCH") if r["status"] == 204)

    def body():
        return download_artifact(upload_artifact(big), tmp_path / "back.bin")

    file = in_flow(body)
    assert before == 3 * MIB
    assert file.sha256 == digest(big.read_bytes())
    assert effects.count("/1/artifacts") == 1
    assert sum(r["received"] for r in effects.embedded.requests("PATCH") if r["status"] == 204) == big.stat().st_size


def test_a_file_that_changes_while_it_is_sent_is_refused(in_flow, effects, big, small_chunks, monkeypatch):
    """A file that changes during its upload does not become an artifact. Its next version does, as a whole."""
    patch = tus.patch

    async def meddling(*args, **options):
        reached = await patch(*args, **options)
        if reached == 2 * MIB:
            with big.open("r+b") as file:
                file.write(b"changed")
        return reached

    with (
        monkeypatch.context() as patched,
        pytest.raises(SourceChangedError, match=r"big\.bin changed while it was sent"),
    ):
        patched.setattr(tus, "patch", meddling)
        in_flow(lambda: upload_artifact(big))
    assert sent(effects) < big.stat().st_size
    assert in_flow(lambda: upload_artifact(big)).sha256 == digest(big.read_bytes())


def test_a_download_is_verified(in_flow, effects, source, tmp_path, embedded_directory):
    """Bytes that were damaged on the platform are refused and leave no file, with and without a known sha256."""
    series = in_flow(lambda: upload_artifact(source))
    blob = embedded_directory.blob(series.urn)
    rotten = bytearray(blob.read_bytes())
    rotten[-2] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(rotten)
    for given in (series, series.urn, series.model_copy(update={"sha256": None})):
        with pytest.raises(IntegrityError, match="was not written") as caught:
            in_flow(lambda given=given: download_artifact(given, tmp_path / "back.csv"))
        assert (caught.value.expected, caught.value.found) == (series.sha256, digest(bytes(rotten)))
    assert [path.name for path in tmp_path.iterdir() if "back" in path.name] == []


def test_a_file_that_is_overwritten_is_no_input(in_flow, ivcap_journal, source, tmp_path):
    """The old file at the target of a download is not recorded as used."""
    back = tmp_path / "back.csv"
    back.write_text("of another day\n", encoding="utf-8")
    old = urn_at(back)

    def body():
        series = upload_artifact(source)
        return series, download_artifact(series, back)

    series, file = in_flow(body)
    [run] = ivcap_journal.runs.recent()
    graph = run_graph(ivcap_journal, run.id)
    assert old not in graph.nodes
    assert series.urn in graph.lineage(urn_at(file.path)).nodes


def test_a_right_file_is_not_fetched_again(in_flow, effects, source, tmp_path):
    """A file with the artifact's content is not downloaded again. One with other content is replaced."""
    back = tmp_path / "back.csv"

    def body():
        series = upload_artifact(source)
        return series, [download_artifact(series, back) for _ in range(2)]

    series, files = in_flow(body)

    def blobs():
        return [r for r in effects.embedded.requests("GET") if r["path"].endswith("/blob")]

    assert files[0] == files[1] and len(blobs()) == 1
    stamp = back.stat().st_mtime_ns
    in_flow(lambda: download_artifact(series.urn, str(back)))
    assert (back.stat().st_mtime_ns, len(blobs())) == (stamp, 1)
    back.write_text("something else")
    in_flow(lambda: download_artifact(series, back))
    assert back.read_bytes() == source.read_bytes() and len(blobs()) == 2


def test_who_reads_a_file_that_a_download_found_is_linked_to_the_download(in_flow, source, ivcap_journal, tmp_path):
    """The file comes from the first download, which wrote it. The second says that it is what its artifact has."""
    back = tmp_path / "back.csv"
    in_flow(lambda: download_artifact(upload_artifact(source), back))

    @task(name="Read")
    def read(file: LocalFile) -> int:
        return len(Path(file).read_bytes())

    def body():
        series = upload_artifact(source, media_type="text/plain")
        read(download_artifact(series, back))
        return series

    series = in_flow(body)
    graph = run_graph(ivcap_journal, ivcap_journal.runs.recent(1)[0].id)
    [reading] = [node.id for node in graph.nodes.values() if node.attributes.get("name") == "Read"]
    assert series.urn in graph.lineage(reading).nodes


@pytest.mark.parametrize(
    "fault", [{"truncate": 2 * MIB}, {"reset": True}, pytest.param({"status": 503}, marks=pytest.mark.long)]
)
def test_a_download_goes_on(in_flow, effects, big, tmp_path, fault):
    """A download that breaks off continues after the bytes it has, and is verified as a whole."""
    series = in_flow(lambda: upload_artifact(big))
    effects.embedded.add_fault(method="GET", path="/blob$", count=1, **fault)
    file = in_flow(lambda: download_artifact(series, tmp_path / "back.bin"))
    assert file.sha256 == series.sha256
    statuses = [r["status"] for r in effects.embedded.requests("GET") if r["path"].endswith("/blob")]
    assert statuses[-1] == (206 if "truncate" in fault else 200)


def test_products(in_flow, effects, source, tmp_path, tasks_service):
    """The products of an order are found by name and downloaded. An unknown name is an error with the known ones."""

    def body():
        order = place_order(tasks_service, {"series": upload_artifact(source)})
        [done] = wait_for_orders([order], timeout=60)
        return done, download_artifact(done.products["upper.csv"], tmp_path / "upper.csv")

    done, file = in_flow(body)
    assert Path(file).read_bytes() == source.read_bytes().upper()
    assert sorted(product.name for product in done.products)[:2] == ["lower.csv", "upper.csv"]
    assert done.products[0].size == source.stat().st_size
    with pytest.raises(KeyError, match=r"no product 'missing.csv'; there are: .*upper\.csv"):
        done.products["missing.csv"]


@pytest.mark.parametrize("wrong", ["missing.csv", "."])
def test_what_is_no_readable_file(in_flow, effects, tmp_path, wrong):
    """A missing file or a folder is an error before anything is sent."""
    with pytest.raises(InputError, match=r"cannot be read|no regular file"):
        in_flow(lambda: upload_artifact(tmp_path / wrong))
    assert effects.embedded.requests() == []
