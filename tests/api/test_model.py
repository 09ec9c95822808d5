"""A real server held against a model of itself: projects, keys, files and jobs, in whatever order Hypothesis likes,
with the server killed in between. The model is a few dictionaries; what it says an answer is, the answer has to be."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import httpx
from conftest import KEY, Server, chat_row
from following import jsonl
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

ACTS = {  # from each status of a job that nobody works on; None: refused
    "cancel": {"validating_files": "cancelled", "paused": "cancelled", "cancelled": None},
    "pause": {"validating_files": "paused", "paused": "paused", "cancelled": None},
    "resume": {"validating_files": "validating_files", "paused": "validating_files", "cancelled": None},
}


@dataclass
class Project:
    id: str
    watch: str  # a key of the test's own, that only reads
    archived: bool = False
    files: dict[str, bytes] = field(default_factory=dict)  # oldest first
    jobs: dict[str, str] = field(default_factory=dict)  # status by id, oldest first


@dataclass
class Key:
    id: str
    value: str
    access: str
    project: Project
    revoked: bool = False

    @property
    def is_good(self) -> bool:
        return not self.revoked and not self.project.archived


@dataclass(frozen=True)
class Thing:
    """A file or a job, and whose it is."""

    id: str
    owner: Project


class ServerModel(RuleBasedStateMachine):
    server: ClassVar[Server]
    number: ClassVar[itertools.count] = itertools.count()

    projects, keys, files, jobs = Bundle("projects"), Bundle("keys"), Bundle("files"), Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Project] = []
        self.kills = 0
        self.http = httpx.Client(timeout=60)

    def teardown(self) -> None:
        self.kill()
        for project in self.all:
            self.lists(Key("", project.watch, "read", project))
        self.http.close()

    def ask(self, method: str, path: str, key: str = KEY, **more: object) -> httpx.Response:
        url = f"{self.server.base_url}{path}"
        return self.http.request(method, url, headers={"authorization": f"Bearer {key}"}, **more)

    def done(self, method: str, path: str, **more: object) -> dict[str, str]:
        answer = self.ask(method, path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    # --- projects and keys ------------------------------------------------------------------------------------

    @initialize(target=projects)
    def the_first(self) -> Project:
        return self.found_project()

    @rule(target=projects)
    def found_project(self) -> Project:
        made = self.done("POST", "/organization/projects", json={"name": f"project {next(self.number)}"})["id"]
        watch = self.done("POST", f"/organization/projects/{made}/api_keys", json={"name": "watch", "scope": "read"})
        self.all.append(Project(made, watch["value"]))
        return self.all[-1]

    @rule(project=projects)
    def archive(self, project: Project) -> None:
        if len([one for one in self.all if not one.archived]) > 1:
            self.done("POST", f"/organization/projects/{project.id}/archive")
            project.archived = True

    @rule(target=keys, project=projects, access=st.sampled_from(["read", "write", "write", "admin"]))
    def mint(self, project: Project, access: str) -> Key:
        body = {"name": access, "scope": access}
        answer = self.ask("POST", f"/organization/projects/{project.id}/api_keys", json=body)
        if project.archived:
            assert answer.status_code == 400, answer.text
            return Key("none", "sk-pegbox-none", access, project, revoked=True)
        return Key(answer.json()["id"], answer.json()["value"], access, project)

    @rule(key=keys)
    def revoke(self, key: Key) -> None:
        answer = self.ask("DELETE", f"/organization/projects/{key.project.id}/api_keys/{key.id}")
        assert answer.status_code == (404 if key.id == "none" else 200), answer.text
        key.revoked = True

    @rule(target=keys, key=keys)
    @precondition(lambda self: self.all)
    def rotate(self, key: Key) -> Key:
        answer = self.ask(
            "POST", f"/organization/projects/{key.project.id}/api_keys/{key.id}/rotate", json={"overlap_seconds": 0}
        )
        if not key.is_good:
            assert answer.status_code in (400, 404), answer.text
            return key
        assert answer.status_code == 200, answer.text
        key.revoked = True
        return Key(answer.json()["id"], answer.json()["value"], key.access, key.project)

    # --- files ------------------------------------------------------------------------------------------------

    @rule(target=files, key=keys, rows=st.integers(10, 13))
    def upload(self, key: Key, rows: int) -> Thing:
        content = jsonl([chat_row(f"{next(self.number)}?", "yes") for _ in range(rows)])
        form = {"files": {"file": ("a.jsonl", content)}, "data": {"purpose": "fine-tune"}}
        answer = self.ask("POST", "/files", key.value, **form)
        if self.let_in(key, answer, writes=True):
            assert answer.status_code == 200, answer.text
            key.project.files[answer.json()["id"]] = content
            return Thing(answer.json()["id"], key.project)
        return Thing("file-none", key.project)

    @rule(key=keys, file=files)
    def read(self, key: Key, file: Thing) -> None:
        answer = self.ask("GET", f"/files/{file.id}/content", key.value)
        if self.let_in(key, answer):
            mine = key.project.files.get(file.id)
            assert (answer.status_code, answer.content if mine else None) == ((200, mine) if mine else (404, None))

    @rule(key=keys, file=files)
    def delete(self, key: Key, file: Thing) -> None:
        answer = self.ask("DELETE", f"/files/{file.id}", key.value)
        if self.let_in(key, answer, writes=True):
            assert answer.status_code == (200 if file.id in key.project.files else 404), answer.text
            key.project.files.pop(file.id, None)

    # --- jobs -------------------------------------------------------------------------------------------------

    @rule(target=jobs, key=keys, file=files)
    def create(self, key: Key, file: Thing) -> Thing:
        answer = self.ask("POST", "/fine_tuning/jobs", key.value, json={"model": "tiny", "training_file": file.id})
        if self.let_in(key, answer, writes=True):
            assert answer.status_code == (200 if file.id in key.project.files else 400), answer.text
            if answer.status_code == 200:
                key.project.jobs[answer.json()["id"]] = "validating_files"
                return Thing(answer.json()["id"], key.project)
        return Thing("ftjob-none", key.project)

    @rule(key=keys, job=jobs, act=st.sampled_from(sorted(ACTS)))
    def act(self, key: Key, job: Thing, act: str) -> None:
        answer = self.ask("POST", f"/fine_tuning/jobs/{job.id}/{act}", key.value)
        if not self.let_in(key, answer, writes=True):
            return
        if (status := key.project.jobs.get(job.id)) is None:
            assert answer.status_code == 404, answer.text
        elif (then := ACTS[act][status]) is None:
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_job_state")
        else:
            assert (answer.status_code, answer.json()["status"]) == (200, then)
            key.project.jobs[job.id] = then

    # --- what is told afterwards ------------------------------------------------------------------------------

    @rule(key=keys)
    def lists(self, key: Key) -> None:
        files = self.ask("GET", "/files?limit=1000", key.value)
        jobs = self.ask("GET", "/fine_tuning/jobs?limit=100", key.value)
        if self.let_in(key, files):
            assert [file["id"] for file in files.json()["data"]] == [*reversed(key.project.files)]
            told = [(job["id"], job["status"]) for job in jobs.json()["data"]]
            assert told == [*reversed(key.project.jobs.items())]

    @rule()
    @precondition(lambda self: self.kills < 2 and any(project.jobs for project in self.all))
    def kill(self) -> None:
        self.kills += 1
        self.server.kill()
        self.server.start()

    def let_in(self, key: Key, answer: httpx.Response, *, writes: bool = False) -> bool:
        """Whether the key opens this; if not, that it was told so."""
        if not key.is_good:
            assert answer.status_code == 401, answer.text
            return False
        if writes and key.access == "read":
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")
            return False
        return True


def test_a_server_is_what_its_model_says(tiny_catalog: Path, tmp_path: Path) -> None:
    env = {"PEGBOX_WORK_JOBS": "false", "PEGBOX_WRONG_KEYS_PER_MINUTE": "0"}
    ServerModel.server = Server(tmp_path / "data", tiny_catalog, env).start()
    try:
        run_state_machine_as_test(
            ServerModel,
            settings=settings(
                max_examples=8, stateful_step_count=50, deadline=None, derandomize=True,
                suppress_health_check=list(HealthCheck), phases=[Phase.generate],
            ),
        )  # fmt: skip
    finally:
        ServerModel.server.close()
