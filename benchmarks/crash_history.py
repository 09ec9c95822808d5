"""What was asked of a server, what it acknowledged, and whether it still stands by that."""

import collections
import random
import threading
from dataclasses import dataclass, field

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

FINAL = ("succeeded", "failed", "cancelled")
# Told at each pause, each life, each death.
_AGAIN = ("Job paused", "Job resumed", "Job is pausing", "Training resumed", "The training process was ended by signal")
# What a job is told that was killed five times in a row before it got any further.
_KILLED_TOO_OFTEN = (
    "The job was given up: work on it broke off",
    "The job failed due to an internal error: the training process was killed",
)
_READ_BACK = 2  # files whose bytes are fetched at a check; the disk is looked at whole, besides


@dataclass
class FileStory:
    content: bytes
    id: str | None = None  # once acknowledged
    purpose: str = ""
    delete_asked: bool = False
    delete_acknowledged: bool = False


@dataclass
class JobStory:
    id: str | None = None
    asked: list[str] = field(default_factory=list)  # cancel, pause, resume: in the order of asking
    acknowledged: list[str] = field(default_factory=list)
    ended: str | None = None  # the final status, once seen
    model: str | None = None


class History:
    """Safe to use from several threads. Files and jobs by the word that their caller gave them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.files: dict[str, FileStory] = {}
        self.jobs: dict[str, JobStory] = {}
        self.faults: list[str] = []
        self._counts: collections.Counter[str] = collections.Counter()
        self.calls = self.unanswered = self.server_errors = self.ended = self.given_up = 0

    def fault(self, kind: str, text: str) -> None:
        with self.lock:
            if f"{kind}: {text}" not in self.faults:
                self.faults.append(f"{kind}: {text}")
                self._counts[kind] += 1
                print(f"{kind}: {text}", flush=True)

    def count(self, kind: str) -> int:
        return self._counts[kind]

    def summary(self) -> str:
        with self.lock:
            ended = collections.Counter(job.ended or "going" for job in self.jobs.values())
            return (
                f"{len(self.files)} files, jobs {dict(ended)}, {self.unanswered} unanswered, {len(self.faults)} faults"
            )

    def resumed(self, job_id: str) -> None:
        with self.lock:
            for job in self.jobs.values():
                if job.id == job_id:
                    job.asked.append("resume")

    def check(self, client: OpenAI, draw: random.Random) -> None:
        """Ask the server for all that it ever acknowledged."""
        with self.lock:  # the load waits meanwhile
            self._check_files(client, draw)
            self._check_jobs(client)

    def _check_files(self, client: OpenAI, draw: random.Random) -> None:
        listed = {file.id: file for file in client.files.list(limit=10_000)}
        for word, file in self.files.items():
            if file.id is None:
                continue
            if file.delete_acknowledged and file.id in listed:
                self.fault("lost", f"the deletion of file {word}")
            if not file.delete_asked and file.id not in listed:
                self.fault("lost", f"file {word}")
        for found in listed.values():
            story = self.files.get(found.filename)
            if story is not None and found.bytes != len(story.content):
                self.fault("half_visible", f"file {found.filename} has {found.bytes} bytes")
        kept = [file for file in self.files.values() if file.id and not file.delete_asked]
        for file in draw.sample(kept, min(_READ_BACK, len(kept))):
            if client.files.content(str(file.id)).content != file.content:
                self.fault("half_visible", f"file {file.id} has other bytes")

    def _check_jobs(self, client: OpenAI) -> None:
        found: dict[str, list[FineTuningJob]] = collections.defaultdict(list)
        for job in client.fine_tuning.jobs.list(limit=100):
            found[(job.metadata or {}).get("word", "")].append(job)
        models = {model.id for model in client.models.list()}
        self.given_up = 0
        for word, story in self.jobs.items():
            if len(found[word]) > 1:
                self.fault("doubled", f"job {word} is there {len(found[word])} times")
            if story.id is not None and story.id not in [job.id for job in found[word]]:
                self.fault("lost", f"job {word}")
            for job in found[word][:1]:
                story.id = story.id or job.id
                self._check_job(client, word, story, job, models)
                self.given_up += job.status == "failed"

    def _check_job(self, client: OpenAI, word: str, story: JobStory, job: FineTuningJob, models: set[str]) -> None:
        if "cancel" in story.acknowledged and job.status != "cancelled":
            self.fault("lost", f"the cancelling of job {word}, which is {job.status}")
        paused = story.acknowledged[-1:] == ["pause"] and story.asked[-1:] == ["pause"]
        if paused and job.status not in ("pausing", "paused", "succeeded", "failed"):
            self.fault("lost", f"the pause of job {word}, which is {job.status}")
        if story.ended and (job.status, job.fine_tuned_model) != (story.ended, story.model):
            self.fault("lost", f"the end of job {word}: it was {story.ended} and is {job.status}")
        if job.status in FINAL and story.ended is None:
            story.ended, story.model = job.status, job.fine_tuned_model
            self._check_end(client, word, job, models)

    def _check_end(self, client: OpenAI, word: str, job: FineTuningJob, models: set[str]) -> None:
        events = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
        once = [text for text in events if not text.startswith(_AGAIN)]
        for text in {text for text in once if once.count(text) > 1}:
            self.fault("doubled", f"event of job {word}: {text}")
        why = job.error.message if job.error else ""
        if job.status == "failed" and not why.startswith(_KILLED_TOO_OFTEN):
            self.fault("lost", f"job {word}, which failed: {why}")
        if job.status == "succeeded":
            if job.fine_tuned_model not in models or not job.result_files:
                self.fault("half_visible", f"job {word} succeeded without its model or its result file")
            elif not client.files.content(job.result_files[0]).content.startswith(b"step,"):
                self.fault("half_visible", f"the result file of job {word}")
            steps = [
                int(text.split()[1].split("/")[0])
                for text in events
                if text.startswith("Step ") and "/" in text.split()[1]
            ]
            if sorted(steps) != list(range(1, len(steps) + 1)):
                self.fault("lost", f"steps of job {word}: {sorted(steps)}")
        for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
            if checkpoint.fine_tuned_model_checkpoint not in models:
                self.fault("half_visible", f"checkpoint {checkpoint.step_number} of job {word} has no model")
