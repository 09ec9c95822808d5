import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from pegbox import settings as module
from pegbox.settings import Settings


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PEGBOX_")]:
        monkeypatch.delenv(name)


def test_defaults_are_fit_for_one_user_on_one_machine() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.api_key, settings.smtp_host) == (None, None)
    assert settings.min_examples == 10
    assert settings.max_file_bytes == 512 * 1024 * 1024


def test_folders_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().root == tmp_path.resolve() / ".pegbox"
    assert Settings().models == tmp_path.resolve() / ".cache/pegbox/models"
    monkeypatch.chdir(tmp_path)
    settings = Settings(data_dir=Path("here"), models_dir=Path("a/../b"))
    assert (settings.root, settings.models) == (tmp_path.resolve() / "here", tmp_path.resolve() / "b")


def test_the_environment_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEGBOX_PORT", "9")
    monkeypatch.setenv("pegbox_organization", "acme-2")
    monkeypatch.setenv("PEGBOX_HOLDOUT", "false")
    monkeypatch.setenv("PEGBOX_API_KEY", "sk-secret")
    monkeypatch.setenv("PEGBOX_NO_SUCH_THING", "1")
    monkeypatch.setenv("PORT", "7")
    settings = Settings()
    assert (settings.port, settings.organization, settings.holdout) == (9, "acme-2", False)
    assert "sk-secret" not in repr(settings)
    assert settings.api_key.get_secret_value() == "sk-secret"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "-1"), ("PORT", "65536"), ("PORT", "http"), ("PORT", ""), ("MIN_EXAMPLES", "0"), ("MAX_FILE_BYTES", "0"),
        ("MAX_BODY_BYTES", "-5"), ("CONCURRENT_JOBS", "0"), ("KEEP_CHECKPOINTS", "0"), ("THREADS", "-1"), ("THREADS", "1.5"),
        ("LOADED_ADAPTERS", "0"), ("CONCURRENT_GENERATIONS", "0"), ("ORGANIZATION", "Acme"), ("ORGANIZATION", "a:b"),
        ("ORGANIZATION", ""), ("ORGANIZATION", "a\n"), ("SMTP_PORT", "0"), ("SMTP_SECURITY", "ssl"), ("HOLDOUT", "perhaps"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_at_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PEGBOX_{name}", value)
    with pytest.raises(ValidationError) as error:
        Settings()
    assert name.lower() in str(error.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_every_setting_that_is_no_secret_is_explained() -> None:
    unexplained = {name for name, field in Settings.model_fields.items() if not field.description}
    assert {name for name in unexplained if not name.startswith(("smtp_", "mail_"))} == set()


@pytest.mark.parametrize(
    ("share", "usable", "threads"),
    [("max 100000\n", 4, 4), ("200000 100000\n", 4, 2), ("250000 100000\n", 4, 2), ("50000 100000\n", 4, 1), ("900000 100000\n", 4, 4),
     ("garbage", 4, 4), ("", 4, 4), (None, 3, 3), ("x y", 1, 1)],
)  # fmt: skip
def test_threads_are_a_containers_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, share: str | None, usable: int, threads: int
) -> None:
    quota = tmp_path / "cpu.max"
    if share is not None:
        quota.write_text(share, "ascii")
    monkeypatch.setattr(module, "Path", lambda _: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)), raising=False)
    assert Settings().cpu_threads == threads
    assert Settings(threads=7).cpu_threads == 7
