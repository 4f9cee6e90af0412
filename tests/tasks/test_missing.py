"""What the platform has lost: an upload that a request found missing is made again, and nothing else is."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from ivcap_flows import tasks
from ivcap_flows.capture import use_journal
from ivcap_flows.cli.orders import forget_effect
from ivcap_flows.errors import DurabilityError, ForbiddenError, InputError, NotFoundError, OrderFailedError
from ivcap_flows.identity import short_id
from ivcap_flows.provena.models import DatasetTemplate

collection_items = tasks.collection_items.fn
download_artifact = tasks.download_artifact.fn
get_artifact = tasks.get_artifact.fn
get_order = tasks.get_order.fn
place_order = tasks.place_order.fn
read_item = tasks.provena.read_item.fn
read_artifact = tasks.read_artifact.fn
register_item = tasks.register_item.fn
upload_artifact = tasks.upload_artifact.fn
upload_directory = tasks.upload_directory.fn
wait_for_orders = tasks.wait_for_orders.fn

pytestmark = pytest.mark.usefixtures("soon_missing")

READS_A_FOLDER = """
def run(request, job):
    for urn in request["members"].split():
        job.read_artifact(urn)
"""


@pytest.fixture
def lose(embedded_directory) -> Callable[..., None]:
    """Return `lose(urn)`, after which the platform has no such artifact or order, as after a partial restore."""

    def lost(urn: str) -> None:
        table = urn.split(":")[2] + "s"
        with closing(sqlite3.connect(embedded_directory.database, timeout=10)) as database, database:
            database.execute("PRAGMA foreign_keys = OFF")
            assert database.execute(f"DELETE FROM {table} WHERE id = ?", (urn,)).rowcount == 1

    return lost


def missed(urn: str) -> None:
    """A later request that names it as missing."""
    with pytest.raises(NotFoundError, match="Run again: the next upload of the same content looks for it"):
        get_artifact(urn)


NAMES = {
    "get": lambda artifact, folder, service: get_artifact(artifact.urn),
    "read": lambda artifact, folder, service: read_artifact(artifact),
    "download": lambda artifact, folder, service: download_artifact(artifact, folder / "back.csv"),
}


def order_of(service, artifact):
    [order] = wait_for_orders([place_order(service, {"series": artifact}, once_per="account")])
    return order


@pytest.mark.catches("what is lost is kept")
@pytest.mark.parametrize("names", NAMES)
def test_an_upload_that_is_missing_is_made_again(effects, lose, source, tmp_path, caplog, names):
    """After a request that names it: until then it is kept. The log says what supersedes what, and the bytes are
    those of the file."""
    first = upload_artifact(source)
    lose(first.urn)
    assert upload_artifact(source) == first and effects.count("/1/artifacts") == 1
    with pytest.raises(NotFoundError, match="Run again: the next upload of the same content looks for it"):
        NAMES[names](first, tmp_path, None)
    second = upload_artifact(source)
    assert second.urn != first.urn and read_artifact(second) == source.read_bytes()
    assert f"The platform has lost {first.urn}, so the upload is now {second.urn}." in caplog.text
    assert upload_artifact(source) == second and effects.count("/1/artifacts") == 2
    [row] = effects.intents("upload")
    assert (row.state, row.urn, row.duplicates) == ("done", second.urn, [])


def test_an_order_that_failed_for_it_makes_it_again(effects, lose, source, tasks_service, caplog):
    """The error does not advise to pay again for the same missing artifact. The next run orders with the new one."""
    first = upload_artifact(source)
    lose(first.urn)
    with pytest.raises(OrderFailedError) as failed:
        order_of(tasks_service, first)
    assert f"The input {first.urn} is missing on the platform. Run again" in str(failed.value)
    assert "max_resubmits" not in str(failed.value)
    second = upload_artifact(source)
    assert order_of(tasks_service, second).succeeded
    assert (effects.count("/1/artifacts"), effects.count("/1/orders")) == (2, 2)


def test_what_failed_for_it_is_not_paid_for_again(effects, lose, source, tasks_service, in_script, caplog):
    """However often it may be placed anew: the error comes after one order, and names the input."""
    missing = upload_artifact(source)
    lose(missing.urn)
    with pytest.raises(OrderFailedError, match=f"The input {missing.urn} is missing on the platform. Run again"):
        in_script(lambda: tasks.run_order(tasks_service, {"series": missing}, max_resubmits=3))
    assert effects.count("/1/orders") == 1
    assert f"max_resubmits=3 does not count: the input {missing.urn} was found missing" in caplog.text


def test_a_pipeline_that_was_complete_pays_for_nothing_again(effects, lose, source, tasks_service):
    """Nothing asks for its artifact any more, so the same upload and the same order are kept."""
    first = upload_artifact(source)
    order = order_of(tasks_service, first)
    lose(first.urn)
    again = order_of(tasks_service, upload_artifact(source))
    assert (again.urn, effects.count("/1/artifacts"), effects.count("/1/orders")) == (order.urn, 1, 1)


@pytest.mark.catches("made again before it must show")
def test_what_only_shows_late_is_not_made_again(effects, embedded_platform, source):
    """The note goes once its own account sees it within the visibility delay."""
    first = upload_artifact(source)
    path = f"/1/artifacts/{first.urn}"
    embedded_platform.add_fault(method="GET", path=path, status=404, count=2)
    missed(first.urn)
    embedded_platform.add_fault(method="GET", path=path, status=404, count=2)
    assert upload_artifact(source).urn == first.urn and effects.count("/1/artifacts") == 1
    [row] = effects.intents("upload")
    assert (row.state, row.error) == ("done", None)


def test_another_account_that_does_not_see_it_notes_nothing(effects, second_account, source, monkeypatch):
    """It answers 404, too. What the own account reads counts, by whichever credentials are at hand; without them the
    error says what is not done.
    """
    first = upload_artifact(source)
    [row] = effects.intents("upload")
    with pytest.raises(NotFoundError, match=f"{row.account}, which uploaded it, sees it: pass that account's"):
        get_artifact(first.urn, credentials=second_account)
    with pytest.raises(NotFoundError, match="sees it"):
        read_item(first.urn)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("IVCAP_JWT", second_account.token.get_secret_value())
        with pytest.raises(NotFoundError, match=f"{row.account} uploaded it, whose credentials are not at hand"):
            get_artifact(first.urn)
    assert effects.intents("upload") == [row]
    assert upload_artifact(source).urn == first.urn and effects.count("/1/artifacts") == 1


def test_what_another_account_names_is_read_with_the_own_one(effects, lose, second_account, source):
    """So a loss is noticed, whoever meets it."""
    first = upload_artifact(source)
    lose(first.urn)
    with pytest.raises(NotFoundError, match="Run again: the next upload of the same content looks for it"):
        get_artifact(first.urn, credentials=second_account)
    assert upload_artifact(source).urn != first.urn


def test_what_the_own_account_does_not_see_is_not_paid_for_again(
    effects, second_account, source, tasks_service, in_script, caplog
):
    """An order of another account fails for the upload each time. It is placed once, and the log says why."""
    theirs = upload_artifact(source)
    [row] = effects.intents("upload")
    with pytest.raises(OrderFailedError, match=f"{row.account}, which uploaded it, sees it"):
        in_script(
            lambda: tasks.run_order(tasks_service, {"series": theirs}, max_resubmits=3, credentials=second_account)
        )
    assert effects.count("/1/orders") == 1 and effects.intents("upload") == [row]
    assert "max_resubmits=3 does not count: urn:ivcap:account:" in caplog.text
    assert f"does not see the input {theirs.urn}, which {row.account} made." in caplog.text


def test_what_its_own_account_may_not_see_is_not_made_again(effects, embedded_platform, source):
    """403 does not say that it is gone."""
    first = upload_artifact(source)
    embedded_platform.add_fault(method="GET", path=f"/1/artifacts/{first.urn}", status=404, count=2)
    missed(first.urn)
    embedded_platform.add_fault(method="GET", path=f"/1/artifacts/{first.urn}", status=403)
    with pytest.raises(ForbiddenError):
        upload_artifact(source)
    embedded_platform.clear_faults()
    assert upload_artifact(source).urn == first.urn and effects.count("/1/artifacts") == 1


@pytest.mark.catches("what is lost is not superseded")
@pytest.mark.parametrize("before", [True, False], ids=["had it", "is new"])
def test_two_journals_make_it_again_once(effects, lose, source, other_journal, before):
    """The second adopts what superseded it, whether it had the old one or not."""
    first = upload_artifact(source)
    if before:
        with use_journal(other_journal):
            assert upload_artifact(source).urn == first.urn
    lose(first.urn)
    missed(first.urn)
    second = upload_artifact(source)
    assert second.urn != first.urn
    with use_journal(other_journal):
        if before:
            assert upload_artifact(source).urn == first.urn
            missed(first.urn)
        assert upload_artifact(source).urn == second.urn
    assert effects.count("/1/artifacts") == 2


def test_it_is_made_again_as_often_as_it_is_lost(effects, lose, source, other_journal):
    """By whichever journal notices."""
    urns = [upload_artifact(source).urn]
    for journal in (None, other_journal, None):
        lose(urns[-1])
        with use_journal(journal or effects.journal):
            # The other one knows an older, or none.
            while (known := upload_artifact(source).urn) in urns:
                missed(known)
            urns.append(known)
    assert effects.count("/1/artifacts") == len(set(urns)) == 4


def test_a_folder_whose_member_is_lost(effects, lose, tmp_path, unique):
    """The collection has the new member in place of the old one; the other members stay."""
    folder = tmp_path / unique
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.csv").write_text(f"{name}{unique}")
    collection = upload_directory(folder, pack="collection")
    before = [item.urn for item in collection_items(collection)]
    lose(before[1])
    missed(before[1])
    assert upload_directory(folder, pack="collection").urn == collection.urn
    after = [item.urn for item in collection_items(collection)]
    assert set(before) - set(after) == {before[1]} and len(after) == 3
    assert sorted(read_artifact(urn) for urn in after) == sorted(path.read_bytes() for path in folder.iterdir())


def test_a_collection_with_a_lost_member_is_noticed(effects, lose, serve, tmp_path, unique):
    """By an order that failed and has the collection among its parameters."""
    reader = serve(
        "reads-members", READS_A_FOLDER, [{"name": "members", "type": "string"}, {"name": "of", "type": "collection"}]
    )
    folder = tmp_path / unique
    folder.mkdir()
    (folder / "a.csv").write_text(unique)
    collection = upload_directory(folder, pack="collection")
    [member] = collection_items(collection)
    lose(member.urn)
    with pytest.raises(OrderFailedError, match=f"The input {member.urn} is missing"):
        wait_for_orders([place_order(reader, {"members": member.urn + " ", "of": collection.urn})])
    upload_directory(folder, pack="collection")
    [again] = collection_items(collection)
    assert again.urn != member.urn


def test_a_collection_that_is_lost_is_defined_again(effects, embedded_directory, tmp_path, unique):
    """By the next upload of the folder, under the same URN, with the same members."""
    folder = tmp_path / unique
    folder.mkdir()
    (folder / "a.csv").write_text(unique)
    collection = upload_directory(folder, pack="collection")
    members = collection_items(collection)
    with closing(sqlite3.connect(embedded_directory.database, timeout=10)) as database, database:
        assert database.execute("DELETE FROM aspects WHERE entity = ?", (collection.urn,)).rowcount == 2
    assert upload_directory(folder, pack="collection") == collection
    assert collection_items(collection) == members and effects.count("/1/artifacts") == 1


def test_a_product_is_never_made_again(effects, lose, source, tasks_service):
    """The error says that nothing makes it again by itself."""
    order = order_of(tasks_service, upload_artifact(source))
    product = order.products[0]
    lose(product.urn)
    with pytest.raises(OrderFailedError, match=f"The input {product.urn} is missing .* no upload of it"):
        order_of(tasks_service, product)
    assert order_of(tasks_service, upload_artifact(source)).urn == order.urn
    assert effects.count("/1/orders") == 2


@pytest.mark.catches("orders are made again")
def test_an_order_that_is_lost_is_not_made_again(effects, lose):
    """The error of a wait names the command that forgets it."""
    order = place_order("echo", {"message": "m"}, once_per="run")
    lose(order.urn)
    for ask in (partial(wait_for_orders, [order]), partial(get_order, order.urn)):
        with pytest.raises(NotFoundError, match=f"orders forget {short_id(order.key)}"):
            ask()
    assert place_order("echo", {"message": "m"}).urn == order.urn and effects.count("/1/orders") == 1


def test_what_is_forgotten_is_requested_again(effects, lose, other_journal, unique):
    """Only what its platform does not have. Every journal finds the new one."""

    def place():
        return place_order("echo", {"message": unique}, once_per="account")

    first = place()
    [row] = effects.intents("order")
    with pytest.raises(DurabilityError, match=f"The platform has {first.urn}, so"):
        forget_effect(effects.journal, row)
    lose(first.urn)
    time.sleep(0.3)
    assert "The next run that asks for it requests it again and pays for it." in forget_effect(effects.journal, row)
    with use_journal(other_journal):
        assert place().urn == first.urn
    second = place()
    assert second.urn != first.urn and place() == second
    assert effects.count("/1/orders") == 2


def test_two_journals_that_forget_it_place_one(effects, lose, other_journal, unique):
    """The second waits for what the first requested in place of what is lost."""
    for journal in (effects.journal, other_journal):
        with use_journal(journal):
            first = place_order("echo", {"message": unique}, once_per="account")
    lose(first.urn)
    time.sleep(0.3)
    urns = set()
    for journal in (effects.journal, other_journal):
        [row] = journal.intents.where(noun="order")
        forget_effect(journal, row)
        with use_journal(journal):
            urns.add(place_order("echo", {"message": unique}, once_per="account").urn)
    assert len(urns - {first.urn}) == len(urns) == 1 and effects.count("/1/orders") == 2


def test_a_handle_that_is_lost_is_not_made_again(effects, embedded_directory, unique):
    """The error names the command that forgets it, although Provena does not say what it did not find."""
    made = register_item(DatasetTemplate(display_name=unique))
    [row] = effects.intents("registry item")
    with (
        closing(sqlite3.connect(embedded_directory.database.with_name("provena.sqlite"), timeout=10)) as database,
        database,
    ):
        database.execute("PRAGMA foreign_keys = OFF")
        assert database.execute("DELETE FROM items WHERE id = ?", (made.urn,)).rowcount == 1
    with pytest.raises(NotFoundError, match=f"orders forget {short_id(row.key)}"):
        read_item(made)
    assert register_item(DatasetTemplate(display_name=unique)).urn == made.urn
    time.sleep(0.3)
    forget_effect(effects.journal, row)
    assert register_item(DatasetTemplate(display_name=unique)).urn != made.urn


def test_what_is_not_forgotten(effects, monkeypatch, source, lose):
    """An upload, what cannot be looked up, what is not done, what is new, and what is of another account."""
    upload_artifact(source)
    place_order("echo", {"message": "m"})
    [upload], [order] = effects.intents("upload"), effects.intents("order")
    lose(order.urn)
    for row, error, words in [
        (upload, InputError, "needs no forgetting"),
        (replace(order, noun="message"), InputError, "A message cannot be looked up"),
        (replace(order, state="claimed"), DurabilityError, "is claimed: the journal has no effect"),
        (replace(order, updated_at=order.updated_at + timedelta(hours=1)), DurabilityError, "after it was made"),
        (replace(order, account="urn:ivcap:account:other"), InputError, "is of the account urn:ivcap:account:other"),
    ]:
        with pytest.raises(error, match=words):
            forget_effect(effects.journal, row)
    assert effects.intents("order") == [order]
