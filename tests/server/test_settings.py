"""Settings: from flags, variables, a file and defaults, in this order; whatever is wrong is told with its origin."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.server.running import ROOT, environment, run

from botwire.errors import InvalidInput
from botwire.settings import SERVER_VARIABLES, VARIABLES
from botwire_server import settings
from botwire_server.settings import TABLE, Settings, is_loopback, load


def file_with(tmp_path: Path, text: str) -> str:
    path = tmp_path / "server.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_without_anything_the_defaults_hold():
    assert load({}, {}) == Settings()


def test_flags_win_over_variables_those_over_the_file_and_that_over_the_defaults(tmp_path):
    config = file_with(tmp_path, 'port = 1\nmax_batch = 1\nburst = 1\nrequests_per_second = 1\nlog_format = "json"')
    environ = {"BOTWIRE_PORT": "2", "BOTWIRE_MAX_BATCH": "2", "BOTWIRE_BURST": "2"}
    found = load({"port": "3", "max_batch": "3", "host": None, "allowed_hosts": ()}, environ, config)
    assert (found.port, found.max_batch, found.burst, found.log_format) == (3, 3, 2, "json")
    assert found.max_body == Settings().max_body


def test_the_file_can_be_named_by_a_variable_and_a_flag_names_it_first(tmp_path):
    config = file_with(tmp_path, "port = 1")
    assert load({}, {"BOTWIRE_CONFIG": config}).port == 1
    other = tmp_path / "other.toml"
    other.write_text("port = 2")
    assert load({}, {"BOTWIRE_CONFIG": config}, str(other)).port == 2


def test_every_kind_of_setting_reads_the_same_from_each_place(tmp_path):
    wanted = Settings(
        store="sqlite:///x.db", port=0, free_tier=True, metrics=False, requests_per_second=2.5, writes_per_day=7,
        allowed_hosts=("a.example", "b.example"), log_level="debug",
    )  # fmt: skip
    texts = {
        "store": "sqlite:///x.db", "port": "0", "requests_per_second": "2.5", "writes_per_day": "7",
        "log_level": "debug",
    }  # fmt: skip
    variables = {TABLE[name].variable: text for name, text in texts.items()}
    variables |= {
        "BOTWIRE_FREE_TIER": "true",
        "BOTWIRE_METRICS": "off",
        "BOTWIRE_ALLOWED_HOSTS": "a.example, b.example",
    }
    flags: dict[str, Any] = {**texts, "free_tier": True, "metrics": False, "allowed_hosts": ("a.example,b.example",)}
    config = file_with(
        tmp_path,
        'store = "sqlite:///x.db"\nport = 0\nrequests_per_second = 2.5\nwrites_per_day = 7\nlog_level = "debug"\n'
        'free_tier = true\nmetrics = false\nallowed_hosts = ["a.example", "b.example"]',
    )
    assert load(flags, {}) == wanted
    assert load({}, variables) == wanted
    assert load({}, {}, config) == wanted
    assert load({**flags, "allowed_hosts": ("a.example", "b.example")}, {}) == wanted


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("port", "abc", "a whole number, 0 to 65,535"),
        ("port", "65536", "a whole number, 0 to 65,535"),
        ("port", "-1", "a whole number, 0 to 65,535"),
        ("port", "1e3", "a whole number, 0 to 65,535"),
        ("port", "1.5", "a whole number, 0 to 65,535"),
        ("port", "", "a whole number, 0 to 65,535"),
        ("max_body", "0", "a whole number, 1 or more"),
        ("heartbeat", "nan", "a number, 0.1 or more"),
        ("heartbeat", "0", "a number, 0.1 or more"),
        ("audit", "maybe", "true or false"),
        ("keys", "on", "'auto' or 'required' or 'off'"),
        ("host", "", "text"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_it_should_be(name, text, wanted):
    setting = TABLE[name]
    with pytest.raises(InvalidInput) as told:
        load({}, {setting.variable: text})
    assert str(told.value) == f"{setting.variable}={text!r}: must be {wanted}"
    if setting.kind is not bool:
        with pytest.raises(InvalidInput) as told:
            load({name: text}, {})
        assert str(told.value) == f"{setting.flag}={text!r}: must be {wanted}"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('port = "8765"', "port='8765': must be a whole number"),
        ("port = true", "port=True: must be a whole number"),
        ("metrics = 1", "metrics=1: must be true or false"),
        ("allowed_hosts = [1]", "allowed_hosts=(1,): must be a list of texts"),
        ('allowed_hosts = "a.example"', "allowed_hosts='a.example': must be a list of texts"),
        ("heartbeat = inf", "heartbeat=inf: must be a number"),
        ("prot = 1", "unknown setting 'prot': did you mean port?"),
        ("max-body = 1", "unknown setting 'max-body': did you mean max_body?"),
        ("[server]\nport = 1", "unknown setting 'server'"),
        ("port = ", "is not TOML"),
    ],
)
def test_a_wrong_line_of_the_file_is_refused_and_the_file_is_named(tmp_path, line, told):
    config = file_with(tmp_path, line)
    with pytest.raises(InvalidInput, match=re.escape(told)) as error:
        load({}, {}, config)
    assert config in str(error.value)


def test_a_file_that_is_not_there_or_is_no_text_is_told(tmp_path):
    missing = str(tmp_path / "none.toml")
    with pytest.raises(InvalidInput, match=re.escape(f"the settings file {missing} cannot be read")):
        load({}, {"BOTWIRE_CONFIG": missing})
    (tmp_path / "server.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="is not TOML"):
        load({}, {}, str(tmp_path / "server.toml"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tls_cert": "a.pem"}, "tls_cert without tls_key"),
        ({"tls_key": "a.pem"}, "tls_key without tls_cert"),
        ({"keys": "off", "host": "0.0.0.0"}, "beyond loopback every request needs an API key"),
        ({"burst": "5"}, "without requests_per_second"),
        ({"trusted_proxies": "proxy.example"}, "write an address or a network"),
        ({"trusted_proxies": "10.0.0.1/8"}, "write an address or a network"),
        ({"allowed_hosts": "https://a.example"}, "is no host name"),
        ({"allowed_hosts": "a.example:80"}, "is no host name"),
        ({"allowed_origins": "*"}, "is no web origin"),
        ({"allowed_origins": "https://a.example/path"}, "is no web origin"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_their_places(given, told):
    with pytest.raises(InvalidInput, match=re.escape(told)) as error:
        load({}, {TABLE[name].variable: text for name, text in given.items()})
    assert all(TABLE[name].variable in str(error.value) for name in given)
    with pytest.raises(InvalidInput, match=re.escape(told)):  # … and so are those of a program
        Settings(**{name: TABLE[name].parsed(text) for name, text in given.items()})


def test_a_program_is_told_of_wrong_settings_as_well():
    wrong: Any = {"port": "8765"}
    with pytest.raises(InvalidInput, match="port='8765' must be a whole number"):
        Settings(**wrong)
    with pytest.raises(InvalidInput, match=r"max_batch=0 must be a whole number, 1 to 10,000"):
        Settings().over(max_batch=0)


def test_over_leaves_alone_what_is_not_given():
    assert Settings(port=1).over(port=None, burst=3, requests_per_second=1.0) == Settings(
        port=1, burst=3, requests_per_second=1.0
    )


def test_loopback_is_told_from_what_others_reach():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "", "fe80::1"))


def test_the_core_knows_every_variable_of_the_server():
    assert settings.VARIABLES == SERVER_VARIABLES
    assert not set(VARIABLES) & SERVER_VARIABLES


def test_every_setting_is_an_option_of_the_command():
    done = run("serve", "--help")
    assert done.returncode == 0, done.stderr
    words = set(re.findall(r"--[a-z-]+", done.stdout))
    for setting in TABLE.values():
        assert setting.flag in words
        assert setting.kind is not bool or f"--no-{setting.flag[2:]}" in words


def test_wrong_settings_end_the_command_with_one_line_and_its_code(tmp_path):
    for told, arguments, environ in [
        ("--port='abc': must be a whole number", ["--port", "abc"], {}),
        ("BOTWIRE_PORT='abc': must be a whole number", [], {"BOTWIRE_PORT": "abc"}),
        ("did you mean BOTWIRE_PORT?", [], {"BOTWIRE_PRT": "1"}),
        ("unknown setting 'prt'", ["--config", file_with(tmp_path, "prt = 1")], {}),
    ]:
        done = run("serve", *arguments, **environ)
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_the_command_line_does_not_wait_for_the_web_framework():
    script = (
        "import sys; from botwire_server.cli import serve;"
        "print({'fastapi', 'uvicorn', 'starlette', 'apsw', 'prometheus_client'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"


# ── the docs ────────────────────────────────────────────────────────────────────────────────────────


def rows() -> list[str]:
    """The lines of the table as the docs must have them."""
    lines = []
    for setting in TABLE.values():
        if setting.default in (None, ()):
            default = ""
        else:
            default = f"`{str(setting.default).lower() if setting.kind is bool else setting.default}`"
        lines.append(f"| `{setting.name}` | {default} | {setting.about.text} |")
    return lines


def test_the_table_in_the_docs_is_what_the_settings_say():
    page = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    table = re.findall(r"(?m)^\| `[a-z_]+` \| .*\|$", page.partition("## Settings")[2].partition("\n## ")[0])
    assert table == rows()
