"""`python -m pegbox.engines.host FOLDER THREADS ADAPTERS`: a TorchEngine behind a pipe.

One JSON message a line. In: {"op": "stream" | "score" | "cancel" | "unload" | "close", "id", …}. Out, for each
request: {"id", "delta"} until one with a finish, or {"id", "scores"}, or {"id", "error"}. Open generations go on
together, a token each, so a long answer never blocks a short one.
"""

import json
import os
import queue
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pegbox.engines.base import FAILURES, AdapterRef, Generation, Sampling
from pegbox.errors import FormError

if TYPE_CHECKING:  # torch is imported when the pipe stands
    from pegbox.engines.together import Together
    from pegbox.engines.torch import TorchEngine

Message = dict[str, object]


def serve(engine: "TorchEngine", inbox: "queue.Queue[Message | None]", out: TextIO) -> None:
    """Answer messages until None arrives."""
    open_ones = engine.together()
    while True:
        try:
            message = inbox.get(block=not open_ones)
            if message is None or message["op"] == "close":
                return
            try:
                _begin(engine, message, open_ones, out)
            except FAILURES as error:
                _send(out, {"id": message["id"], "error": str(error)})
            continue  # take in everything that waits before making more tokens
        except queue.Empty:
            pass
        for key, told in open_ones.step():
            if isinstance(told, Exception):
                _send(out, {"id": key, "error": str(told), "of_form": isinstance(told, FormError)})
            else:
                _send(out, {"id": key, "delta": asdict(told)})


def _begin(engine: "TorchEngine", message: Message, open_ones: "Together", out: TextIO) -> None:
    key = str(message["id"])
    match message["op"]:
        case "stream":
            open_ones.add(key, generation_from(message["generation"]))  # type: ignore[arg-type]
        case "score":
            tokens, adapter, top = message["tokens"], message["adapter"], message["top"]
            ref = AdapterRef(**adapter) if adapter else None  # type: ignore[arg-type]
            scores = engine.score(tokens, ref, top)
            _send(out, {"id": key, "scores": [score and asdict(score) for score in scores]})
        case "cancel":
            open_ones.drop(key)
        case "unload":
            engine.unload(str(message["adapter"]))


def generation_from(values: dict[str, object]) -> Generation:
    """The inverse of `asdict` on a Generation, after a trip through JSON."""
    sampling = dict(values["sampling"])  # type: ignore[call-overload]
    sampling["logit_bias"] = {int(token): bias for token, bias in sampling["logit_bias"].items()}
    adapter = values["adapter"]
    return Generation(
        **{
            **values,
            "stop_ids": frozenset(values["stop_ids"]),  # type: ignore[call-overload]
            "adapter": AdapterRef(**adapter) if adapter else None,  # type: ignore[arg-type]
            "sampling": Sampling(**sampling),
        }
    )


def _send(out: TextIO, message: Message) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def main() -> None:
    # Answers go out on the real stdout; whatever a library prints must not mix with them.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    inbox: queue.Queue[Message | None] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            inbox.put(json.loads(line))
        inbox.put(None)  # the server is gone: so are we

    threading.Thread(target=listen, daemon=True).start()
    from pegbox.engines.torch import TorchEngine

    folder, threads, adapters = sys.argv[1:4]
    try:
        engine = TorchEngine(Path(folder), threads=int(threads), loaded_adapters=int(adapters))
    except (OSError, ValueError, RuntimeError) as error:
        _send(out, {"id": "ready", "error": f"the base model can't be loaded: {error}"})
        return
    _send(out, {"id": "ready"})
    serve(engine, inbox, out)


if __name__ == "__main__":
    main()
