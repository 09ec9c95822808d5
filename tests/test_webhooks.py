"""Webhooks, from a job's end to the stock client's `unwrap`, against a real receiver."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from conftest import KEY, Server, ServerMaker, finished, rows, upload_bytes
from following import jsonl, wait_for
from openai import OpenAI
from pysqlite3 import dbapi2
from receiver import Got, Receiver, receiving, status
from sqlalchemy import select, update

from pegbox.adapters import Adapters
from pegbox.catalog.models import Catalog
from pegbox.errors import NotFound
from pegbox.files import Files
from pegbox.jobs.submit import Desk
from pegbox.notify import endpoints, log, webhook
from pegbox.notify.deliver import Deliverer
from pegbox.queue import outbox, store
from pegbox.queue.states import Status
from pegbox.settings import Settings
from pegbox.storage import db as db_module
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.scope import DEFAULT, Scope
from pegbox.storage.tables import deliveries, webhook_endpoints
from pegbox.storage.tables import outbox as outbox_table
from pegbox.wire.webhooks import CreateEndpoint, UpdateEndpoint

LOCAL = {"PEGBOX_WEBHOOK_NETWORKS": "127.0.0.0/8", "PEGBOX_WEBHOOK_HTTP": "true"}
ENDED = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture(scope="module")
def shared(tiny_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("webhooks") / "data", tiny_catalog, LOCAL).start()
    yield running
    running.close()


@pytest.fixture
def client(shared: Server) -> Iterator[OpenAI]:
    made = shared.client()
    yield made
    for endpoint in made.webhooks.list():
        made.webhooks.delete(endpoint.id)


def failing_job(client: OpenAI) -> str:
    """A job that ends at once: its file holds too few examples."""
    file = upload_bytes(client, jsonl(rows(3)))
    return client.fine_tuning.jobs.create(model="tiny", training_file=file).id


def unwrapped(client: OpenAI, got: Got, secret: str) -> object:
    return client.webhooks.unwrap(got.body, got.headers, secret=secret)


# --- the stock client ----------------------------------------------------------------------------------------


def test_a_job_that_ends_is_told_and_the_stock_client_believes_it(client: OpenAI, receiver: Receiver) -> None:
    made = client.webhooks.create(name="mine", url=receiver.url(), event_types=ENDED)
    job = failing_job(client)
    assert finished(client, job).status == "failed"
    (got,) = receiver.wait()
    event = unwrapped(client, got, made.signing_secret)
    assert isinstance(event, openai.types.webhooks.FineTuningJobFailedWebhookEvent)
    assert (event.type, event.object, event.data.id) == ("fine_tuning.job.failed", "event", job)
    assert event.id == got.headers["webhook-id"]
    assert event.id.startswith("evt_")
    assert event.created_at == client.fine_tuning.jobs.retrieve(job).finished_at
    assert got.headers["content-type"] == "application/json"
    assert len(got.body) < 20_000
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrapped(client, Got(got.line, got.headers, got.body.replace(b"failed", b"succeeded")), made.signing_secret)


def test_success_and_cancel_are_told_to_those_who_asked_for_them(client: OpenAI, receiver: Receiver) -> None:
    with receiving() as other:
        kept = client.webhooks.create(name="good", url=receiver.url(), event_types=["fine_tuning.job.succeeded"])
        bad = client.webhooks.create(name="bad", url=other.url(), event_types=["fine_tuning.job.cancelled"])
        file = upload_bytes(client, jsonl(rows(12)))
        wish = {"model": "tiny", "training_file": file, "hyperparameters": {"n_epochs": 1}}
        first = client.fine_tuning.jobs.create(**wish)
        second = client.fine_tuning.jobs.create(**wish)
        client.fine_tuning.jobs.cancel(second.id)
        assert finished(client, first.id).status == "succeeded"
        good = unwrapped(client, receiver.wait()[0], kept.signing_secret)
        assert isinstance(good, openai.types.webhooks.FineTuningJobSucceededWebhookEvent)
        assert good.data.id == first.id
        cancelled = unwrapped(client, other.wait()[0], bad.signing_secret)
        assert isinstance(cancelled, openai.types.webhooks.FineTuningJobCancelledWebhookEvent)
        assert cancelled.data.id == second.id
        assert (len(receiver.got), len(other.got)) == (1, 1)


def test_create_list_retrieve_update_delete(client: OpenAI) -> None:
    url = "http://127.0.0.1:9/hook"
    made = [client.webhooks.create(name=f"n{i}", url=url, event_types=ENDED[:1]) for i in range(3)]
    assert [one.id for one in client.webhooks.list(limit=2)] == [one.id for one in made[::-1]]  # page by page
    found = client.webhooks.retrieve(made[0].id)
    assert (found.name, found.url, found.event_types) == ("n0", url, ENDED[:1])
    assert found.signing_secret_hint == f"whsec_***{made[0].signing_secret[-4:]}"
    assert not hasattr(found, "signing_secret")
    changed = client.webhooks.update(made[0].id, name="new", event_types=ENDED)
    assert (changed.name, changed.url, changed.event_types) == ("new", url, ENDED)
    gone = client.webhooks.delete(made[1].id)
    assert (gone.object, gone.deleted) == ("webhook_endpoint.deleted", True)
    with pytest.raises(openai.NotFoundError) as missing:
        client.webhooks.retrieve(made[1].id)
    assert missing.value.code == "webhook_endpoint_not_found"
    assert client.webhooks.event_types.list().data == ENDED


def test_the_secret_is_shown_once(client: OpenAI, shared: Server) -> None:
    made = client.webhooks.create(name="mine", url="http://127.0.0.1:9/", event_types=ENDED)
    assert made.signing_secret.startswith("whsec_")
    http = shared.http()
    for path in ("/webhook_endpoints", f"/webhook_endpoints/{made.id}", f"/webhook_endpoints/{made.id}/deliveries"):
        assert made.signing_secret.removeprefix("whsec_") not in http.get(path).text
    update = http.post(f"/webhook_endpoints/{made.id}", json={"name": "x"}).text
    assert made.signing_secret.removeprefix("whsec_") not in update


@pytest.mark.parametrize("keep", [True, False])
def test_after_a_rotation_both_secrets_sign_if_wanted(client: OpenAI, receiver: Receiver, *, keep: bool) -> None:
    old = client.webhooks.create(name="mine", url=receiver.url(), event_types=ENDED)
    new = client.webhooks.rotate_secret(old.id, keep_old_secret_active_for_24_hours=keep)
    assert new.signing_secret != old.signing_secret
    client.webhooks.test(old.id, event_type="fine_tuning.job.succeeded")
    (got,) = receiver.got
    assert len(got.headers["webhook-signature"].split()) == (2 if keep else 1)
    unwrapped(client, got, new.signing_secret)
    if keep:
        unwrapped(client, got, old.signing_secret)
    else:
        with pytest.raises(openai.InvalidWebhookSignatureError):
            unwrapped(client, got, old.signing_secret)


def test_a_test_event_says_what_was_answered(client: OpenAI, receiver: Receiver) -> None:
    made = client.webhooks.create(name="mine", url=receiver.url(), event_types=ENDED)
    receiver.answers = [status(200), status(418), status(302, "location: http://127.0.0.1:9/\r\n")]
    codes = [client.webhooks.test(made.id, event_type="batch.completed").status_code for _ in range(3)]
    assert codes == [200, 418, 302]
    event = unwrapped(client, receiver.got[0], made.signing_secret)
    assert event.type == "batch.completed"


def test_a_test_event_that_reaches_nobody_is_an_error(client: OpenAI) -> None:
    with receiving() as gone:
        url = gone.url()
    made = client.webhooks.create(name="mine", url=url, event_types=ENDED)
    with pytest.raises(openai.BadRequestError, match="did not reach") as refused:
        client.webhooks.test(made.id, event_type="fine_tuning.job.failed")
    assert (refused.value.param, refused.value.code) == ("url", "webhook_not_delivered")


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"url": "https://10.0.0.1/"}, "url"), ({"url": "https://[::ffff:10.0.0.1]/"}, "url"), ({"url": "ftp://a/"}, "url"),
        ({"url": "https://user@8.8.8.8/"}, "url"), ({"url": "http://8.8.8.8/"}, "url"), ({"url": ""}, "url"),
        ({"event_types": []}, "event_types"), ({"event_types": ["fine_tuning.job.success"]}, "event_types[0]"),
        ({"name": ""}, "name"), ({"surprise": 1}, "surprise"),
    ],
)  # fmt: skip
def test_what_makes_no_endpoint(client: OpenAI, shared: Server, wish: dict[str, object], param: str) -> None:
    body = {"name": "n", "url": "https://8.8.8.8/", "event_types": ENDED, **wish}
    answer = shared.http().post("/webhook_endpoints", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert list(client.webhooks.list()) == []


# --- delivery ------------------------------------------------------------------------------------------------


def test_a_failed_delivery_is_repeated_with_the_same_id(client: OpenAI, shared: Server, receiver: Receiver) -> None:
    made = client.webhooks.create(name="mine", url=receiver.url(), event_types=ENDED)
    with receiving() as target:
        receiver.answers = [status(302, f"location: {target.url()}\r\n"), status(204)]
        job = failing_job(client)
        first, second = receiver.wait(2)  # the second comes five seconds later
        assert target.got == []
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    unwrapped(client, second, made.signing_secret)
    http = shared.http()

    def told() -> dict[str, object]:
        (one,) = http.get(f"/webhook_endpoints/{made.id}/deliveries").json()["data"]
        return one

    wait_for(lambda: told()["status"] == "delivered", "the log to say so")
    one = told()
    assert (one["event_type"], one["fine_tuning_job_id"], one["next_attempt_at"]) == (ENDED[1], job, None)
    assert [tried["status_code"] for tried in one["attempts"]] == [302, 204]
    assert "redirects are not followed" in one["attempts"][0]["error"]
    assert one["attempts"][1]["error"] is None


def test_410_switches_the_endpoint_off_until_it_is_switched_on(
    client: OpenAI, shared: Server, receiver: Receiver
) -> None:
    made = client.webhooks.create(name="mine", url=receiver.url(), event_types=ENDED)
    receiver.answers = [status(410)]
    failing_job(client)
    receiver.wait()
    http = shared.http()
    wait_for(lambda: not http.get(f"/webhook_endpoints/{made.id}").json()["enabled"], "the endpoint to be off")
    with receiving() as other:
        client.webhooks.create(name="other", url=other.url(), event_types=ENDED)
        failing_job(client)
        other.wait()  # so the second ending has been told to whom it is told
    assert http.post(f"/webhook_endpoints/{made.id}", json={"enabled": True}).json()["enabled"]
    third = failing_job(client)
    receiver.wait(2)
    assert third.encode() in receiver.got[1].body  # of the second, nobody was told
    assert len(http.get(f"/webhook_endpoints/{made.id}/deliveries").json()["data"]) == 2


def test_an_ending_outlives_kill_and_is_told_by_the_next_server(new_server: ServerMaker, receiver: Receiver) -> None:
    server = new_server(**LOCAL)
    client = server.client()
    made = client.webhooks.create(name="mine", url=receiver.url(), event_types=ENDED)
    receiver.answers = [status(503)]
    job = failing_job(client)
    path = f"/webhook_endpoints/{made.id}/deliveries"
    wait_for(lambda: any(one["attempts"] for one in server.http().get(path).json()["data"]), "the first attempt's note")
    server.kill()
    server.start()
    event = unwrapped(client, receiver.wait(2)[-1], made.signing_secret)
    assert event.data.id == job


# --- in this process, where time can be turned ----------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    db = Database(tmp_path / "pegbox.db")
    blobs = Blobs(tmp_path / "blobs")
    yield Desk(db, Files(db, blobs), Adapters(db, blobs), Catalog(tmp_path / "models"))
    db.close()


@pytest.fixture
def deliverer(desk: Desk, tmp_path: Path) -> Iterator[Callable[..., Deliverer]]:
    made: list[Deliverer] = []
    settings = Settings(data_dir=tmp_path, webhook_networks="127.0.0.0/8", webhook_http=True)

    def start(*waits: float) -> Deliverer:
        made.append(Deliverer(desk, settings, waits=waits))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.close()


def wish(receiver: Receiver, **changed: object) -> CreateEndpoint:
    return CreateEndpoint(**{"name": "n", "url": receiver.url(), "event_types": ENDED, **changed})


def end(desk: Desk, name: str, scope: Scope = DEFAULT) -> None:
    with desk.db.write() as tx:
        store.enqueue(tx, scope, name)
        job = store.get(tx, name)
        assert job is not None
        store.move(tx, job, Status.CANCELLED)


def test_a_receiver_that_hangs_holds_up_nobody_else(
    desk: Desk, receiver: Receiver, deliverer: Callable[..., Deliverer]
):
    receiver.answers = [lambda c: c.recv(1)] * 3
    endpoints.create(desk.db, DEFAULT, wish(receiver))
    with receiving() as quick:
        endpoints.create(desk.db, DEFAULT, wish(quick))
        for i in range(3):
            end(desk, f"j{i}")
        deliverer()
        quick.wait(3)
        assert len(receiver.got) <= 1


def test_it_is_given_up_after_the_last_attempt(
    desk: Desk, receiver: Receiver, deliverer: Callable[..., Deliverer]
) -> None:
    receiver.answers = [status(500)] * 3
    made = endpoints.create(desk.db, DEFAULT, wish(receiver))
    end(desk, "j")
    deliverer(0.01, 0.01)

    def told() -> log.Told:
        (one,) = log.list_deliveries(desk.db, made.id, after=None, limit=10).items
        return one

    receiver.wait(3)
    wait_for(lambda: len(told().attempts) == 3, "the log")
    assert (told().delivered, told().next_attempt_at) == (False, None)
    assert endpoints.get(desk.db, DEFAULT, made.id).enabled


THEIRS = Scope("proj_b")


def test_an_ending_is_told_to_its_project_and_to_no_other(
    desk: Desk, receiver: Receiver, deliverer: Callable[..., Deliverer]
) -> None:
    endpoints.create(desk.db, DEFAULT, wish(receiver))
    with receiving() as theirs:
        endpoints.create(desk.db, THEIRS, wish(theirs))
        end(desk, "of_ours")
        end(desk, "of_theirs", THEIRS)
        deliverer()
        receiver.wait(1)
        theirs.wait(1)
        wait_for(lambda: not desk_has_work(desk), "all deliveries")
        assert [json.loads(told.body)["data"]["id"] for told in receiver.got] == ["of_ours"]
        assert [json.loads(told.body)["data"]["id"] for told in theirs.got] == ["of_theirs"]


def desk_has_work(desk: Desk) -> bool:
    with desk.db.read() as tx:
        waiting = select(deliveries.c.id).where(deliveries.c.delivered_at.is_(None))
        return tx.execute(waiting).first() is not None


def test_endpoints_hear_of_their_own_project_only(desk: Desk, receiver: Receiver) -> None:
    mine = endpoints.create(desk.db, DEFAULT, wish(receiver))
    other = endpoints.create(desk.db, THEIRS, wish(receiver))
    ending = outbox.Ending(1, "evt_1", "j", Status.FAILED, 1)
    with desk.db.read() as tx:
        assert endpoints.listeners(tx, ending, DEFAULT) == [mine.id]
        assert endpoints.listeners(tx, ending, THEIRS) == [other.id]
    for act in (
        lambda: endpoints.get(desk.db, DEFAULT, other.id),
        lambda: endpoints.change(desk.db, DEFAULT, other.id, UpdateEndpoint(name="x")),
        lambda: endpoints.rotate(desk.db, DEFAULT, other.id, keep_old=False),
        lambda: endpoints.remove(desk.db, DEFAULT, other.id),
    ):
        with pytest.raises(NotFound):
            act()
    assert [e.id for e in endpoints.list_endpoints(desk.db, DEFAULT, after=None, limit=10).items] == [mine.id]
    assert endpoints.get(desk.db, THEIRS, other.id).name == "n"


def test_an_old_secret_ends_after_a_day(desk: Desk, receiver: Receiver) -> None:
    made = endpoints.create(desk.db, DEFAULT, wish(receiver))
    assert len(endpoints.rotate(desk.db, DEFAULT, made.id, keep_old=True).secrets) == 2
    with desk.db.write() as tx:
        until = tx.execute(select(webhook_endpoints.c.old_secret_until)).scalar_one()
        assert 24 * 3600 - 60 < until - time.time() <= 24 * 3600
        tx.execute(update(webhook_endpoints).values(old_secret_until=time.time() - 1))
    assert len(endpoints.get(desk.db, DEFAULT, made.id).secrets) == 1


def test_a_deleted_endpoint_takes_its_deliveries_with_it(desk: Desk, receiver: Receiver) -> None:
    made = endpoints.create(desk.db, DEFAULT, wish(receiver))
    end(desk, "j")
    outbox.route(desk.db, lambda tx, ending: endpoints.listeners(tx, ending, DEFAULT))
    endpoints.remove(desk.db, DEFAULT, made.id)
    with desk.db.read() as tx:
        assert tx.execute(select(deliveries)).all() == []


def test_unchanged_updates_leave_the_time_alone(desk: Desk, receiver: Receiver) -> None:
    made = endpoints.create(desk.db, DEFAULT, wish(receiver))
    with desk.db.write() as tx:
        tx.execute(update(webhook_endpoints).values(updated_at=5))
    assert endpoints.change(desk.db, DEFAULT, made.id, UpdateEndpoint(name="n", event_types=ENDED)).updated_at == 5
    assert endpoints.change(desk.db, DEFAULT, made.id, UpdateEndpoint(name="m")).updated_at > 5


def test_the_signature_by_hand() -> None:
    """The example that stands in the libraries of Standard Webhooks."""
    headers = webhook.signed(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}',
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",), 1614265330,
    )  # fmt: skip
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# --- the command line ----------------------------------------------------------------------------------------


def pegbox(server: Server, *words: str) -> tuple[str, str, int]:
    command = [sys.executable, "-m", "pegbox.cli.main", "--base-url", server.base_url, "--api-key", KEY, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr, done.returncode


def test_the_command_line_does_all_of_it(client: OpenAI, shared: Server, receiver: Receiver) -> None:
    out, err, code = pegbox(shared, "webhooks", "create", receiver.url(), "--name", "mine")
    assert code == 0, err
    endpoint, secret = out.split()
    assert secret.startswith("whsec_")
    assert endpoint in pegbox(shared, "webhooks", "list")[0]
    assert "200" in pegbox(shared, "webhooks", "test", endpoint)[0]
    unwrapped(client, receiver.got[0], secret)
    out, _, _ = pegbox(shared, "webhooks", "rotate", endpoint, "--keep-old")
    assert out.strip().startswith("whsec_")
    pegbox(shared, "webhooks", "update", endpoint, "--event", "fine_tuning.job.failed", "--name", "other")
    assert client.webhooks.retrieve(endpoint).event_types == ["fine_tuning.job.failed"]
    job = failing_job(client)
    receiver.wait(2)
    wait_for(lambda: "delivered" in pegbox(shared, "webhooks", "deliveries", endpoint)[0], "the log")
    assert job in pegbox(shared, "webhooks", "deliveries", endpoint)[0]
    assert pegbox(shared, "webhooks", "delete", endpoint)[2] == 0
    assert list(client.webhooks.list()) == []


# --- from an older server --------------------------------------------------------------------------------------


def test_mail_that_waited_in_an_older_database_is_sent_and_old_stories_are_not(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text

    old = create_engine(f"sqlite+pysqlite:///{tmp_path / 'pegbox.db'}", module=dbapi2)
    config = Config()
    config.set_main_option("script_location", str(Path(db_module.__file__).parent / "migrations"))
    with old.begin() as tx:
        config.attributes["connection"] = tx
        command.upgrade(config, "0002")
        job = "INSERT INTO jobs (id, status, created_at, finished_at, attempt) VALUES ('j', 'failed', 1, 77, 0)"
        row = "INSERT INTO outbox (job_id, kind, attempts, not_before, delivered_at) VALUES ('j', 'failed', 0, {}, {})"
        for statement in (job, row.format(5, "NULL"), row.format(5, 80), row.format(1e18, "NULL")):
            tx.execute(text(statement))
    old.dispose()
    db = Database(tmp_path / "pegbox.db")
    with db.read() as tx:
        found = [(one.kind, one.created_at, one.routed_at) for one in tx.execute(select(outbox_table)).all()]
    assert found == [("failed", 77, None), ("failed", 77, 77), ("failed", 77, 77)]
    assert outbox.route(db, lambda _tx, _ending: [None]) == 1
    (delivery,) = outbox.claim(db, (), 10)
    assert (delivery.ending.job_id, delivery.endpoint_id) == ("j", None)
    db.close()
