"""Row 3 of the attack table: a chat template is a program of the model's author."""

import json
import shutil
import threading
from pathlib import Path

import psutil
import pytest
from conftest import SMOLLM2, Server, ServerMaker

from pegbox.catalog import pull
from pegbox.catalog.models import MANIFEST, Catalog, load_manifest, save_manifest
from pegbox.data import confined
from pegbox.data.template import Template, load_template
from pegbox.errors import CatalogError, RenderError

U: list[dict[str, object]] = [{"role": "user", "content": "U"}]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TOO_LONG = "takes more than 1 s of processor time"


@pytest.fixture
def _little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is enough to see it, in processes of the test's own."""
    monkeypatch.setattr(confined, "CPU_SECONDS", 1)
    monkeypatch.setattr(confined, "_idle", [])


def template(tiny_model: Path, source: str) -> Template:
    values = vars(load_template(tiny_model))
    fields = {name: values[name] for name in Template.__dataclass_fields__}
    return Template(**{**fields, "source": source})


ENDLESS = {
    "loops": LOOP,
    "recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "only for two messages": "{% if messages | length > 1 %}" + LOOP + "{% endif %}ok",
}


@pytest.mark.usefixtures("_little")
@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_ended(tiny_model: Path, name: str) -> None:
    endless = template(tiny_model, ENDLESS[name])
    with pytest.raises(RenderError, match=TOO_LONG):
        endless.render([*U, {"role": "assistant", "content": "A"}])
    assert template(tiny_model, "{{ messages[0].content }}").render(U) == "U", "the next one has a process of its own"


MEMORY = "takes more memory than the 1024 MiB allowed"
HUGE = {
    "range": ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    "repeat": ("{{ 'x' * 10 ** 8 }}", "writes 95 MiB of text, more than the 32 MiB allowed"),
    "replace": ("{{ ('x' * 1000) | replace('x', 'y' * 100000) }}", "writes 95 MiB"),
    "repeat without end": ("{{ 'x' * 10 ** 11 }}", MEMORY),
    "width": ("{{ 'x' | center(10 ** 10) }}", MEMORY),
    "format": ("{{ '{:10000000000}'.format(1) }}", MEMORY),
    "doubling": (
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}", MEMORY
    ),
    "kept, not written": ("{% set all = [0] * 10 ** 10 %}ok", MEMORY),
    "half a character": ("{{ '\\ud800' }}", "half of a surrogate pair"),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGE)
def test_a_template_without_measure_is_refused(tiny_model: Path, name: str) -> None:
    source, reason = HUGE[name]
    before = psutil.Process().memory_info().rss
    with pytest.raises(RenderError, match=reason):
        template(tiny_model, source).render(U)
    assert psutil.Process().memory_info().rss - before < 64 << 20


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ messages.__class__ }}{{ messages.__class__.x }}",
    "{{ ''['__cla' ~ 'ss__']['__mro__'] }}",
    "{{ ('' | attr('__class__')).x }}",
    "{{ ''.format.__self__.__class__.x }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ self._TemplateReference__context.environment.from_string('x') }}",
    "{% include '/etc/passwd' %}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_reaches_nothing(tiny_model: Path, source: str) -> None:
    with pytest.raises(RenderError):
        template(tiny_model, source).render(U)


def test_what_its_process_sees(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it to get out of the sandbox: no secret, no file of the server's open, no way to write one."""
    monkeypatch.setenv("PEGBOX_API_KEY", "canary")
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    monkeypatch.setattr(confined, "_idle", [])
    with (tiny_model / "config.json").open("rb"):
        assert template(tiny_model, "{{ messages[0].content }}").render(U) == "U"
        (one,) = confined._idle
        child = psutil.Process(one._process.pid)
        assert "canary" not in str(child.environ())
        assert child.open_files() == []
    assert child.cwd() == "/"
    limits = {name: child.rlimit(getattr(psutil, f"RLIMIT_{name}")) for name in ("AS", "FSIZE", "CORE")}
    assert limits == {"AS": (1 << 30, 1 << 30), "FSIZE": (0, 0), "CORE": (0, 0)}


def test_many_at_a_time(tiny_model: Path) -> None:
    """Each gets what it asked for, and no more processes are kept than may run."""
    echo = template(tiny_model, "{{ messages[0].content }}")
    said: dict[int, str] = {}

    def ask(i: int) -> None:
        said[i] = echo.render([{"role": "user", "content": f"{i} " * 500}])

    threads = [threading.Thread(target=ask, args=[i]) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {i: f"{i} " * 500 for i in range(40)}
    assert len(confined._idle) <= confined._PROCESSES


def test_a_process_that_is_killed_is_replaced(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "_idle", [])
    echo = template(tiny_model, "{{ messages[0].content }}")
    echo.render(U)
    psutil.Process(confined._idle[0]._process.pid).kill()
    with pytest.raises(RenderError, match="ended with status -9"):
        echo.render(U)
    assert echo.render(U) == "U"


# --- where they come from, and who asks ----------------------------------------------------------------------


@pytest.mark.usefixtures("_little")
def test_a_model_with_such_a_template_is_not_added(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "_child", lambda *_: '{"hidden_size": 64, "parameters": 1}')  # loading takes seconds
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "chat_template.jinja").write_text(LOOP, "utf-8")
    with pytest.raises(CatalogError, match=TOO_LONG):
        pull.add(Catalog(tmp_path / "models"), str(folder), name="m", price=0.0, progress=lambda *_: None)


def test_a_template_of_a_megabyte_is_not_read(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "chat_template.jinja").write_text("x" * 1_100_000, "utf-8")
    with pytest.raises(RenderError, match="chat template is 1,100,000 characters long"):
        load_template(folder)
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "x" * 1_100_000}), "utf-8")
    with pytest.raises(RenderError, match="chat template is 1,100,000 characters long"):
        load_template(folder)


@pytest.fixture
def hostile(tiny_model: Path, tiny_catalog: Path, tmp_path: Path) -> Path:
    """A models directory with a base whose template loops once it is asked by somebody, beside one that is well."""
    root = tmp_path / "models"
    shutil.copytree(tiny_catalog, root)
    folder = Path(shutil.copytree(tiny_model, tmp_path / "hostile"))
    own = (folder / "chat_template.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").write_text(
        "{% if 'now' in messages[0].content %}" + LOOP + "{% endif %}" + own, "utf-8"
    )
    known = load_manifest(root / "tiny" / MANIFEST)
    (root / "hostile").mkdir()
    values = {name: getattr(known, name) for name in type(known).__dataclass_fields__}
    save_manifest(root / "hostile" / MANIFEST, type(known)(**{**values, "name": "hostile", "folder": str(folder)}))
    return root


def test_a_server_goes_on_beside_such_a_template(hostile: Path, new_server: ServerMaker) -> None:
    running: Server = new_server(models_dir=hostile)
    answers = {}
    with running.http() as http, running.http() as other:

        def ask() -> None:
            body = {"model": "hostile", "messages": [{"role": "user", "content": "now"}], "max_tokens": 1}
            answers["hostile"] = http.post("/chat/completions", json=body)

        asking = threading.Thread(target=ask)
        asking.start()
        body = {"model": SMOLLM2, "messages": [{"role": "user", "content": "now"}], "max_tokens": 1}
        well = other.post("/chat/completions", json=body)
        assert other.get("/models").status_code == 200
        asking.join()
    assert well.status_code == 200, well.text
    assert answers["hostile"].status_code == 400
    error = answers["hostile"].json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "messages", "invalid_value")
    assert "takes more than 5 s of processor time" in error["message"]
    assert running.process is not None
    assert running.process.poll() is None
