"""The mail about a job's end: what it says, and how it is sent."""

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import formatdate

from pegbox.jobs.records import Checkpoint, Tuning
from pegbox.queue.states import Status
from pegbox.settings import Settings

_TIMEOUT_SECONDS = 20

# What to do about each failure, beside its own message.
_REMEDIES = {
    "invalid_n_examples": "Add examples to the file, upload it again and create the job again.",
    "invalid_training_file": "Mend the examples named above, upload the file again and create the job again.",
    "invalid_file_format": "Save the file as JSON Lines in UTF-8, one example a line, and upload it again.",
    "training_diverged": "Create the job again with a smaller learning_rate_multiplier.",
}
_OTHER_REMEDY = "See the job's events and the server's log; then create the job again."


def compose(tuning: Tuning, final: Checkpoint | None, settings: Settings) -> EmailMessage:
    """The message for a job that ended, as plain text."""
    message = EmailMessage()
    message["From"] = settings.mail_from
    message["To"] = settings.mail_to or ""
    message["Date"] = formatdate(localtime=True)
    # The same id at every attempt, so that a mail reader can drop a second copy.
    message["Message-ID"] = f"<{tuning.id}@pegbox>"
    message["Subject"] = f"Fine-tuning job {tuning.id} {tuning.job.status}"
    message.set_content(_body(tuning, final, settings))
    return message


def send(message: EmailMessage, settings: Settings) -> None:
    """Hand the message to the configured server. Raises OSError or smtplib.SMTPException."""
    with connected(settings) as server:
        server.send_message(message)


@contextmanager
def connected(settings: Settings) -> Iterator[smtplib.SMTP]:
    """The configured server, logged in. Raises OSError or smtplib.SMTPException."""
    assert settings.smtp_host is not None, "the caller checks that mail is configured"
    host, port = settings.smtp_host, settings.smtp_port
    if settings.smtp_security == "tls":
        tls = ssl.create_default_context()
        connection: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=_TIMEOUT_SECONDS, context=tls)
    else:
        connection = smtplib.SMTP(host, port, timeout=_TIMEOUT_SECONDS)
    with connection as server:
        if settings.smtp_security == "starttls":
            server.starttls(context=ssl.create_default_context())
        if settings.smtp_user is not None:
            password = settings.smtp_password
            server.login(settings.smtp_user, password.get_secret_value() if password else "")
        yield server


def _body(tuning: Tuning, final: Checkpoint | None, settings: Settings) -> str:
    if tuning.job.status == Status.SUCCEEDED:
        return _succeeded(tuning, final, settings)
    if tuning.job.status == Status.CANCELLED:
        return f"Your fine-tuning job {tuning.id} on {tuning.model} was cancelled. Its checkpoints stay usable.\n"
    failure = tuning.job.failure
    code, text = (failure.code, failure.message) if failure else ("unknown", "")
    return (
        f"Your fine-tuning job {tuning.id} on {tuning.model} failed.\n\n"
        f"Error ({code}): {text}\n\n"
        f"What to do: {_REMEDIES.get(code, _OTHER_REMEDY)}\n"
    )


def _succeeded(tuning: Tuning, final: Checkpoint | None, settings: Settings) -> str:
    figures = []
    if final is not None:
        metrics = final.metrics.model_dump(exclude_none=True)
        figures = [f"  {name}: {value:.4g}" for name, value in metrics.items() if name != "step"]
    return "\n".join(
        [
            f"Your fine-tuning job {tuning.id} has succeeded.",
            "",
            f"Model: {tuning.fine_tuned_model}",
            f"Trained on {tuning.model}, {tuning.trained_tokens:,} tokens.",
            *(["", "At the last step:", *figures] if figures else []),
            "",
            "Use it with the client you have:",
            "",
            f'  client = OpenAI(base_url="http://{settings.host}:{settings.port}/v1", api_key="...")',
            "  client.chat.completions.create(",
            f'      model="{tuning.fine_tuned_model}",',
            '      messages=[{"role": "user", "content": "..."}])',
            "",
        ]
    )
