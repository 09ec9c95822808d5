"""A mixed load of stock clients on a server that may die at any moment; each call and answer is put on record."""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable

import openai
from crash_history import FileStory, History, JobStory
from openai import OpenAI

KINDS = ("a", "b")  # of jobs: two files, each with the same job over and over
_AT_ONCE = 3  # jobs that have not ended


def training_rows(kind: str) -> list[object]:
    words = ["red", "green", "blue"] if kind == "a" else ["eins", "zwei", "drei"]
    return [
        {"messages": [{"role": "user", "content": f"Number {i}?"}, {"role": "assistant", "content": words[i % 3]}]}
        for i in range(12)
    ]


def never() -> bool:
    return False


class Load:
    """One client's calls."""

    def __init__(self, client: OpenAI, history: History, draw: random.Random) -> None:
        self._client = client
        self._history = history
        self._draw = draw
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def thread(cls, connect: Callable[[], OpenAI], history: History, seed: int) -> "Load":
        made = cls(connect(), history, random.Random(seed))
        made._thread = threading.Thread(target=made._go_on, daemon=True)
        return made

    def start(self) -> None:
        assert self._thread is not None
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()
        self._client.close()

    def each_kind(self) -> None:
        """A job of each kind, for the others to be compared with."""
        for kind in KINDS:
            self._create(kind)

    def story(self, over: Callable[[], bool] = never) -> None:
        """A bit of everything, in order; ends early when the server has died."""
        self._upload()
        self._delete()
        word = self._create("a")
        if word is None or over():
            return
        self._act("pause", word)
        self._act("resume", word)
        cancelled = self._create("b")
        if cancelled is not None:
            self._act("cancel", cancelled)
        deadline = time.monotonic() + 60
        while not over() and time.monotonic() < deadline:
            job = self._call(lambda: self._client.fine_tuning.jobs.retrieve(str(self._history.jobs[word].id)))
            if job is None or job.status in ("succeeded", "failed", "cancelled"):
                return
            if job.status == "paused":
                self._act("resume", word)
            time.sleep(0.1)

    def _go_on(self) -> None:
        while not self._over.is_set():
            dice = self._draw.random()
            if dice < 0.35:
                self._upload()
            elif dice < 0.45:
                self._delete()
            elif dice < 0.65:
                self._create(self._draw.choice(KINDS))
            else:
                self._control()
            time.sleep(self._draw.uniform(0, 0.3))

    def _call(self, ask: Callable[[], object]) -> object | None:
        """The answer; None where there was none, or an error."""
        with self._history.lock:
            self._history.calls += 1
        try:
            return ask()
        except (openai.APIConnectionError, openai.APITimeoutError):
            with self._history.lock:
                self._history.unanswered += 1
        except openai.InternalServerError as error:
            with self._history.lock:
                self._history.server_errors += 1
                self._history.fault("server_error", str(error))
        except openai.APIStatusError:
            return None  # refused: the job has ended, the file is gone
        return None

    def _send(self, content: bytes, purpose: str, name: str = "") -> FileStory:
        word = f"{name}{uuid.uuid4().hex}.jsonl"
        with self._history.lock:
            story = self._history.files[word] = FileStory(content, purpose=purpose)
        made = self._call(lambda: self._client.files.create(file=(word, content), purpose="fine-tune"))
        if made is not None:
            with self._history.lock:  # not while the history is being checked
                story.id = made.id  # type: ignore[attr-defined]
        return story

    def _upload(self) -> None:
        self._send(self._draw.randbytes(self._draw.choice((10, 5_000, 400_000))), "bytes")

    def _delete(self) -> None:
        with self._history.lock:
            files = self._history.files.values()
            free = [file for file in files if file.id and file.purpose == "bytes" and not file.delete_asked]
            if not free:
                return
            file = self._draw.choice(free)
            file.delete_asked = True
        if self._call(lambda: self._client.files.delete(str(file.id))) is not None:
            with self._history.lock:
                file.delete_acknowledged = True

    def _create(self, kind: str) -> str | None:
        """The word of a new job, if it was acknowledged."""
        with self._history.lock:
            if sum(1 for job in self._history.jobs.values() if job.id and not job.ended) >= _AT_ONCE:
                return None
            known = [file for file in self._history.files.values() if file.purpose == kind and file.id]
        rows = "".join(json.dumps(row) + "\n" for row in training_rows(kind)).encode()
        file = known[0] if known else self._send(rows, kind, kind)
        if file.id is None:
            return None
        word = uuid.uuid4().hex
        with self._history.lock:
            story = self._history.jobs[word] = JobStory()
        made = self._call(
            lambda: self._client.fine_tuning.jobs.create(
                model="tiny", training_file=str(file.id), seed=7, metadata={"word": word, "kind": kind},
                hyperparameters={"n_epochs": 2, "batch_size": 4},
            )
        )  # fmt: skip
        if made is None:
            return None
        with self._history.lock:
            story.id = made.id  # type: ignore[attr-defined]
        return word

    def _control(self) -> None:
        with self._history.lock:
            going = [word for word, job in self._history.jobs.items() if job.id and not job.ended]
        if going:
            what = self._draw.choices(("cancel", "pause", "resume", "retrieve"), (1, 4, 12, 16))[0]
            self._act(what, self._draw.choice(going))

    def _act(self, what: str, word: str) -> None:
        story = self._history.jobs[word]
        if what != "retrieve":
            with self._history.lock:
                story.asked.append(what)
        acts = {
            "cancel": self._client.fine_tuning.jobs.cancel,
            "pause": self._client.fine_tuning.jobs.pause,
            "resume": self._client.fine_tuning.jobs.resume,
            "retrieve": self._client.fine_tuning.jobs.retrieve,
        }
        done = self._call(lambda: acts[what](str(story.id)))
        if done is not None and what != "retrieve":
            with self._history.lock:
                story.acknowledged.append(what)
