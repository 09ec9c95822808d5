"""`pegbox keys`, `projects` and `audit` as people run them."""

import pytest
from conftest import KEY, Server, ServerMaker
from test_cli import BELL_AND_COLOUR, fails, works

from pegbox.cli.keys import seconds
from pegbox.errors import CommandFailed


@pytest.fixture
def own(new_server: ServerMaker) -> Server:
    return new_server()


def test_a_project_and_its_keys(own: Server):
    project = works(own, "projects", "create", "Team A").strip()
    value = works(
        own, "keys", "create", "lead", "--project", project, "--scope", "admin", "--expires-in", "30d"
    ).strip()
    assert value.startswith("sk-pegbox-")
    assert "\n" not in value, "nothing else is on standard output"
    lead = works(own, "keys", "list", "--project", project).splitlines()[1].split("\t")
    assert lead[1:3] == ["lead", "admin"]
    assert lead[4].startswith("until ")
    robot = works(own, "keys", "create", "robot", "--scope", "read", key=value).strip()
    listed = [line.split("\t") for line in works(own, "keys", "list", key=value).splitlines()[1:]]
    assert [(row[1], row[2]) for row in listed] == [("robot", "read"), ("lead", "admin")], "its own project's"
    again = works(own, "keys", "rotate", listed[0][0], "--overlap", "0s", key=value).strip()
    assert "expired" in fails("files", "list", base_url=own.base_url, key=robot)
    works(own, "files", "list", key=again)
    assert "Missing scopes: admin" in fails("keys", "list", base_url=own.base_url, key=again)
    works(own, "keys", "revoke", works(own, "keys", "list", key=value).splitlines()[1].split("\t")[0], key=value)
    assert "was revoked" in fails("files", "list", base_url=own.base_url, key=again)
    works(own, "projects", "rename", project, "Team B")
    assert "Team B" in works(own, "projects", "list", key=value)
    assert "admin key of the default project" in fails("projects", "create", "x", base_url=own.base_url, key=value)
    log = works(own, "audit")
    assert [line.split("\t")[1] for line in log.splitlines()[1:4]] == [
        "project.updated",
        "api_key.deleted",
        "api_key.created",
    ]
    assert not [secret for secret in (KEY, value, robot, again) if secret in log]
    works(own, "projects", "archive", project)
    assert project not in works(own, "projects", "list")
    assert project in works(own, "projects", "list", "--archived")
    assert "is archived" in fails("files", "list", base_url=own.base_url, key=value)


def test_names_of_keys_do_nothing_to_a_terminal(own: Server):
    works(own, "keys", "create", BELL_AND_COLOUR)
    project = works(own, "projects", "create", BELL_AND_COLOUR).strip()
    for shown in (works(own, "keys", "list"), works(own, "projects", "list"), works(own, "audit")):
        assert project or shown
        assert not [c for c in "\x1b\x07\x9b\u202e" if c in shown]


@pytest.mark.parametrize(
    ("text", "wanted"), [("90m", 5_400), ("0s", 0), ("12h", 43_200), ("30d", 2_592_000), ("8w", 4_838_400)]
)
def test_lengths_of_time(text: str, wanted: int):
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "d", "1", "-1d", "1.5h", "1y", "1 d", "9999999999d"])
def test_what_is_no_length_of_time(text: str):
    with pytest.raises(CommandFailed, match="no length of time"):
        seconds(text)
