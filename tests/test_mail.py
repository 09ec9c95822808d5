"""Mail against a real SMTP server on loopback."""

import time
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from conftest import ServerMaker, finished, free_port, rows, upload, write_jsonl


class Mailbox:
    """Keeps what arrives; refuses the first `refuse` messages."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.refuse = 0

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refuse:
            self.refuse -= 1
            return "451 try again later"
        self.messages.append(message_from_bytes(envelope.content or b""))
        return "250 OK"

    def wait(self, n: int = 1, seconds: float = 30) -> list[Message]:
        deadline = time.monotonic() + seconds
        while len(self.messages) < n and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(self.messages) >= n, f"{len(self.messages)} of {n} messages came"
        return self.messages


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, dict[str, str]]]:
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield box, {
        "PEGBOX_SMTP_HOST": "127.0.0.1", "PEGBOX_SMTP_PORT": str(controller.port), "PEGBOX_SMTP_SECURITY": "none",
        "PEGBOX_MAIL_TO": "owner@example.org", "PEGBOX_MAIL_FROM": "pegbox@example.org",
    }  # fmt: skip
    controller.stop()


def body(message: Message) -> str:
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


def test_success_names_the_model_and_how_to_use_it(
    mailbox: tuple[Mailbox, dict[str, str]], new_server: ServerMaker, tmp_path: Path
) -> None:
    box, env = mailbox
    client = new_server(**env).client()
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(12)))
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file, hyperparameters={"n_epochs": 1})
    job = finished(client, job.id)
    (message,) = box.wait()
    assert message["To"] == "owner@example.org"
    assert message["Subject"] == f"Fine-tuning job {job.id} succeeded"
    text = body(message)
    assert str(job.fine_tuned_model) in text
    assert "train_loss" in text
    assert "chat.completions.create" in text


def test_failure_names_error_and_remedy(
    mailbox: tuple[Mailbox, dict[str, str]], new_server: ServerMaker, tmp_path: Path
) -> None:
    box, env = mailbox
    client = new_server(**env).client()
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(9)))
    job = finished(client, client.fine_tuning.jobs.create(model="tiny", training_file=file).id)
    assert job.status == "failed"
    text = body(box.wait()[0])
    assert "invalid_n_examples" in text
    assert "must have at least 10 examples" in text
    assert "Add examples" in text


def test_refused_mail_is_sent_again(
    mailbox: tuple[Mailbox, dict[str, str]], new_server: ServerMaker, tmp_path: Path
) -> None:
    box, env = mailbox
    box.refuse = 1
    client = new_server(**env).client()
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(3)))
    finished(client, client.fine_tuning.jobs.create(model="tiny", training_file=file).id)
    assert len(box.wait()) == 1


def test_dead_mail_server_harms_no_job_and_mail_waits_for_it(new_server: ServerMaker, tmp_path: Path) -> None:
    env = {"PEGBOX_SMTP_HOST": "127.0.0.1", "PEGBOX_SMTP_PORT": str(free_port()), "PEGBOX_SMTP_SECURITY": "none"}
    server = new_server(**env, PEGBOX_MAIL_TO="owner@example.org")
    client = server.client()
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(12)))
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file, hyperparameters={"n_epochs": 1})
    assert finished(client, job.id).status == "succeeded"
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=int(env["PEGBOX_SMTP_PORT"]))
    controller.start()
    try:
        box.wait()
    finally:
        controller.stop()
