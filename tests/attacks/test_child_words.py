"""Row 8 of the attack table: what a user writes reaches no command line and no environment."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from conftest import Server, ServerMaker, finished, rows, upload_bytes

CANARY = "canary5309"
SUFFIX = f";touch {CANARY} $(touch {CANARY})\n--{CANARY}=`id`"


@contextmanager
def children_of(running: Server) -> Iterator[dict[str, str]]:
    """What every process below the server was started with, by its program's name: looked at all the time."""
    assert running.process is not None
    parent, seen, over = psutil.Process(running.process.pid), {}, threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for child in parent.children(recursive=True):
                with suppress(psutil.Error):
                    words = child.cmdline()
                    named = next((word for word in words if word.startswith("pegbox.")), " ".join(words[:1]))
                    seen[f"{named} {child.pid}"] = f"{words} {child.environ()} {child.cwd()}"

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def test_what_a_user_writes_starts_nothing(new_server: ServerMaker) -> None:
    running = new_server()
    client = running.client()
    with children_of(running) as seen:
        content = "".join(json.dumps(row) + "\n" for row in rows(12)).encode()
        file_id = upload_bytes(client, content, name=f"$(touch {CANARY}).jsonl;--{CANARY}")
        job = client.fine_tuning.jobs.create(
            model="tiny", training_file=file_id, suffix=SUFFIX, seed=1,
            metadata={f"--{CANARY}": SUFFIX, "PATH": CANARY, "LD_PRELOAD": f"/tmp/{CANARY}"},
            hyperparameters={"n_epochs": 1, "batch_size": 4},
        )  # fmt: skip
        ended = finished(client, job.id)
        assert ended.status == "succeeded", ended.error
        assert ended.fine_tuned_model is not None
        assert client.chat.completions.create(
            model=ended.fine_tuned_model, messages=[{"role": "user", "content": SUFFIX}], max_tokens=2, user=CANARY
        ).choices
        client.models.delete(ended.fine_tuned_model)
    programs = {name.split()[0] for name in seen}
    assert {"pegbox.runners.child", "pegbox.engines.host", "pegbox.data.confined_child"} <= programs, programs
    for name, given in seen.items():
        assert CANARY not in given, name
        assert "touch" not in given, name
    assert not list(running.data_dir.parent.rglob(f"*{CANARY}*"))
    assert CANARY in ended.fine_tuned_model, "it is in the model's name, as plain words"
    assert not set(";$()` \n") & set(ended.fine_tuned_model)
