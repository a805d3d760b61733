"""Settings: which source wins, and that nothing wrong is ever ignored."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from bakehouse.settings import Settings, SettingsError, load_settings


def test_defaults_are_safe(tmp_path: Path) -> None:
    settings = load_settings({}, environ={}, directory=tmp_path)
    assert settings == Settings()
    assert (settings.host, settings.port, settings.allow_private_webhooks) == ("127.0.0.1", 8787, False)
    assert settings.database == f"sqlite:///{Path.home() / '.bakehouse' / 'bakehouse.db'}"


def test_later_sources_win(tmp_path: Path) -> None:
    (tmp_path / "bakehouse.toml").write_text("port = 1\nprefetch = 2\nidle_timeout = '5m'\n")
    environ = {"BAKEHOUSE_PREFETCH": "3", "BAKEHOUSE_MAX_QUEUE": "30", "PATH": "/bin"}
    settings = load_settings({"max_queue": 40, "host": None}, environ=environ, directory=tmp_path)
    found = (settings.port, settings.prefetch, settings.max_queue, settings.host, settings.idle_timeout)
    assert found == (1, 3, 40, "127.0.0.1", 300)


def test_the_file_of_the_data_directory_is_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "bakehouse.toml").write_text("port = 99\n")
    assert load_settings({"home": home}, environ={}, directory=tmp_path).port == 99
    assert load_settings({}, environ={"BAKEHOUSE_HOME": str(home)}, directory=tmp_path).port == 99


def test_a_named_file_replaces_the_search(tmp_path: Path) -> None:
    (tmp_path / "bakehouse.toml").write_text("port = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("prefetch = 0\n")
    assert load_settings({}, environ={}, config=other, directory=tmp_path).port == 8787
    assert load_settings({}, environ={"BAKEHOUSE_CONFIG": str(other)}, directory=tmp_path).prefetch == 0
    with pytest.raises(SettingsError, match="no such file"):
        load_settings({}, environ={}, config=tmp_path / "missing.toml", directory=tmp_path)


@pytest.mark.parametrize(
    ("toml", "path", "hint"),
    [
        ("prot = 1", "prot", "did you mean port?"),
        ("[server]\nport = 1", "server", "unknown setting server"),
        ("port = true", "port", "must be a number"),
        ("port = 70000", "port", "less than or equal to 65535"),
        ("max_body = '16 XB'", "max_body", "512MiB"),
        ("idle_timeout = nan", "idle_timeout", "not nan"),
        ("idle_timeout = inf", "idle_timeout", "finite"),
        ("isolation = 'maybe'", "isolation", "'auto' or 'off'"),
        ("allow_origins = 5", "allow_origins", "tuple"),
        ("log_level = 'INFO '", "log_level", "'info'"),
        ("public_url = 'example.org'", "public_url", "http://"),
        ("database_url = 'mysql://x'", "database_url", "postgresql://"),
        ("port = ", "config", "not TOML"),
    ],
)
def test_a_wrong_file_stops_the_start(tmp_path: Path, toml: str, path: str, hint: str) -> None:
    (tmp_path / "bakehouse.toml").write_text(toml)
    with pytest.raises(SettingsError) as caught:
        load_settings({}, environ={}, directory=tmp_path)
    assert [field["path"] for field in caught.value.fields] == [path]
    assert hint in caught.value.detail
    assert "bakehouse.toml" in caught.value.detail


def test_each_wrong_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({}, environ={"BAKEHOUSE_PRT": "1", "BAKEHOUSE_HOEM": "/"}, directory=tmp_path)
    assert "unknown variable BAKEHOUSE_PRT; did you mean BAKEHOUSE_PORT?" in caught.value.detail
    assert "unknown variable BAKEHOUSE_HOEM; did you mean BAKEHOUSE_HOME?" in caught.value.detail
    with pytest.raises(SettingsError) as caught:
        load_settings({}, environ={"BAKEHOUSE_PORT": "x", "BAKEHOUSE_PREFETCH": "-1"}, directory=tmp_path)
    assert {field["source"] for field in caught.value.fields} == {"BAKEHOUSE_PORT", "BAKEHOUSE_PREFETCH"}


def test_a_wrong_flag_is_named_as_it_is_typed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--max-queue: .*greater than or equal to 1"):
        load_settings({"max_queue": 0}, environ={}, directory=tmp_path)


def test_a_database_password_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({}, environ={"BAKEHOUSE_DATABASE_URL": "mysql://me:hunter2@db/x"}, directory=tmp_path)
    assert "hunter2" not in caught.value.detail


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_an_address_that_others_reach_must_be_meant(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError):
        load_settings({"host": host}, environ={}, directory=tmp_path)
    if host:
        assert load_settings({"host": host, "allow_public": True}, environ={}, directory=tmp_path).host == host


def test_an_owner_has_room_for_one_inferlet(tmp_path: Path) -> None:
    given = {"inferlet_memory": "1GiB", "inferlet_memory_per_owner": "512MiB"}
    with pytest.raises(SettingsError, match="at least inferlet_memory"):
        load_settings(given, environ={}, directory=tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost", "::1"])
def test_loopback_needs_no_permission(tmp_path: Path, host: str) -> None:
    assert load_settings({"host": host}, environ={}, directory=tmp_path).host == host


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1024", 1024), ("512MiB", 512 * 2**20), ("2 GB", 2 * 10**9), ("none", None), ("", None)],
)
def test_sizes_as_people_write_them(tmp_path: Path, written: str, meant: int | None) -> None:
    environ = {"BAKEHOUSE_MEMORY_LIMIT": written}
    assert load_settings({}, environ=environ, directory=tmp_path).memory_limit == meant


@pytest.mark.parametrize(
    ("written", "meant"), [("90", 90.0), ("1.5s", 1.5), ("5m", 300.0), ("2h", 7200.0), ("none", None)]
)
def test_durations_as_people_write_them(tmp_path: Path, written: str, meant: float | None) -> None:
    environ = {"BAKEHOUSE_TASK_TIMEOUT": written}
    assert load_settings({}, environ=environ, directory=tmp_path).task_timeout == meant


def test_no_limit_is_none_and_not_zero(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="BAKEHOUSE_TASK_TIMEOUT"):
        load_settings({}, environ={"BAKEHOUSE_TASK_TIMEOUT": "0"}, directory=tmp_path)


def test_lists_from_the_environment(tmp_path: Path) -> None:
    for written in ("https://a.org, https://b.org", '["https://a.org", "https://b.org"]'):
        settings = load_settings({}, environ={"BAKEHOUSE_ALLOW_ORIGINS": written}, directory=tmp_path)
        assert settings.allow_origins == ("https://a.org", "https://b.org")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_the_url_that_clients_are_told() -> None:
    assert Settings(port=5).url == "http://127.0.0.1:5"
    assert Settings(host="0.0.0.0", allow_public=True).url == "http://127.0.0.1:8787"
    assert Settings(host="::1").url == "http://[::1]:8787"
    assert Settings(public_url="https://bake.example.org/").url == "https://bake.example.org"


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_setting_is_used() -> None:
    """A setting that is read and changes nothing is worse than one that is refused."""
    sources = Path(__file__).parents[2] / "src" / "bakehouse"
    used = "".join(path.read_text() for room in ("wiring", "settings") for path in (sources / room).rglob("*.py"))
    unused = [name for name in Settings.model_fields if not re.search(rf"\b(?:settings|self)\.{name}\b", used)]
    assert unused == ["allow_public"]  # checked where host is


def test_mcp_servers_are_tables_of_the_file_or_json_of_a_variable(tmp_path: Path) -> None:
    (tmp_path / "bakehouse.toml").write_text('[mcp_servers.bread]\ncommand = ["bread", "--stdio"]\ntimeout = "5s"\n')
    (name, server), *_ = load_settings({}, environ={}, directory=tmp_path).mcp_servers.items()
    assert (name, server.command, server.timeout) == ("bread", ("bread", "--stdio"), 5)
    environ = {"BAKEHOUSE_MCP_SERVERS": '{"weather": {"url": "http://localhost:1/mcp"}}'}
    assert set(load_settings({}, environ=environ, directory=tmp_path).mcp_servers) == {"weather"}


@pytest.mark.parametrize(
    "table",
    [
        'headers = { Authorization = "Bearer secret" }',
        'command = ["x"]\nurl = "http://x"\nheaders = { Authorization = "Bearer secret" }',
        'command = ["x"]\nheaders = { Authorization = "Bearer secret" }',
        'url = "http://x"\nenvironment = { KEY = "secret" }',
        'url = "http://x"\nkey = "secret"',
    ],
)
def test_an_mcp_server_that_is_none_is_refused_without_its_secrets(tmp_path: Path, table: str) -> None:
    (tmp_path / "bakehouse.toml").write_text(f"[mcp_servers.bread]\n{table}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({}, environ={}, directory=tmp_path)
    assert "mcp_servers" in str(caught.value)
    assert "secret" not in str(caught.value)
