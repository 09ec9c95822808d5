"""To watch a job and its server's processes from outside."""

import json
import time
from collections.abc import Callable

import psutil
from conftest import Server
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJobEvent


def jsonl(lines: list[object]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def story(client: OpenAI, job_id: str) -> list[FineTuningJobEvent]:
    """All events, oldest first, fetched page by page."""
    return list(client.fine_tuning.jobs.list_events(job_id, limit=50))[::-1]


def steps(events: list[FineTuningJobEvent]) -> list[int]:
    return [event.data["step"] for event in events if event.type == "metrics"]


def resumptions(events: list[FineTuningJobEvent]) -> list[int]:
    """The steps after which training resumed."""
    return [int(event.message.split()[-1]) for event in events if event.message.startswith("Training resumed after")]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def wait_for_step(client: OpenAI, job_id: str, step: int) -> list[FineTuningJobEvent]:
    def reached() -> bool:
        job = client.fine_tuning.jobs.retrieve(job_id)
        assert job.status in ("validating_files", "queued", "running"), f"too late: {job.status} {job.error}"
        last = client.fine_tuning.jobs.list_events(job_id, limit=3).data
        return max(steps(last), default=0) >= step

    wait_for(reached, f"step {step}")
    return story(client, job_id)


def children(running: Server, word: str = "") -> list[psutil.Process]:
    assert running.process is not None
    found = psutil.Process(running.process.pid).children(recursive=True)
    alive = [process for process in found if process.status() != psutil.STATUS_ZOMBIE]
    return [process for process in alive if word in " ".join(process.cmdline())]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)
