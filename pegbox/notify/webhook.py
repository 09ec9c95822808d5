"""One webhook: what it says, who signed it, and sending it once."""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from http import HTTPStatus

from pegbox import __version__, egress
from pegbox.egress import Lookup, Rules, system_lookup
from pegbox.errors import EgressError
from pegbox.notify.endpoints import Endpoint
from pegbox.queue.outbox import Outcome
from pegbox.wire.webhooks import Event


def send(endpoint: Endpoint, event: Event, rules: Rules, *, lookup: Lookup = system_lookup) -> Outcome:
    """Send an event once. Whatever comes of it is an Outcome: delivered is what was answered with 2xx."""
    body = event.model_dump_json().encode()
    started = time.monotonic()
    status, error = None, None
    try:
        headers = signed(event.id, body, endpoint.secrets, int(time.time()))
        status = egress.post(endpoint.url, body, headers, rules, lookup=lookup)
    except EgressError as failed:
        error = str(failed)
    if status is not None and not 200 <= status < 300:
        error = f"the endpoint answered {status}{_remark(status)}"
    milliseconds = int((time.monotonic() - started) * 1000)
    return Outcome(milliseconds, error, status, final=status == HTTPStatus.GONE)


def signed(event_id: str, body: bytes, secrets: tuple[str, ...], timestamp: int) -> Mapping[str, str]:
    """The headers of a request, with a signature by each secret, as Standard Webhooks has them."""
    content = f"{event_id}.{timestamp}.".encode() + body
    return {
        "content-type": "application/json",
        "user-agent": f"pegbox/{__version__}",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{_signature(secret, content)}" for secret in secrets),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def _remark(status: int) -> str:
    if status == HTTPStatus.GONE:
        return ", which switches it off"
    return ", and redirects are not followed" if 300 <= status < 400 else ""
