"""Server of the app: who is answered, where it listens, and former URLs."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from gradprix import cli

pytest.importorskip("flask", reason="the app needs Flask: pip install 'gradprix[app]'")

from gradprix.app import PortTakenError
from gradprix.app.race_processes import Races
from gradprix.app.server import is_host_allowed, listen, make


@pytest.mark.parametrize(
    ("asked", "host", "answered"),
    [
        ("127.0.0.1:8050", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("[::1]:8050", "127.0.0.1", True),
        ("evil.example:8050", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("192.168.0.7:8050", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("[", "127.0.0.1", False),
        ("192.168.0.7:8050", "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        (socket.gethostname(), "0.0.0.0", True),
    ],
)
def test_only_this_machine_is_answered(asked, host, answered):
    assert is_host_allowed(asked, host) == answered


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    return make(Races(tmp_path_factory.mktemp("runs"))).test_client()


def test_other_hosts_are_refused_on_every_path(client):
    for path in ("/", "/races", "/static/app.css", "/shared/page.css", "/vendor/plotly.min.js"):
        assert client.get(path, headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/", headers={"Host": "127.0.0.1", "Origin": "http://evil.example"}).status_code == 403
    answer = client.get("/", headers={"Host": "127.0.0.1:8050", "Origin": "http://127.0.0.1:8050"})
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"(src|href)=.?(https?:)?//", answer.text)
    for path in (
        "/static/../server.py",
        "/shared/../__init__.py",
        "/shared/%2e%2e/__init__.py",
        "/races/../../etc/passwd",
    ):
        assert client.get(path, headers={"Host": "localhost"}).status_code == 404


@pytest.mark.parametrize(
    ("site", "mode", "answered"),
    [
        ("same-origin", "cors", True),
        ("none", "navigate", True),
        ("cross-site", "navigate", True),
        ("cross-site", "no-cors", False),
        ("same-site", "cors", False),
    ],
)
def test_other_sites_may_link_to_pages_and_load_nothing(client, site, mode, answered):
    headers = {"Host": "localhost", "Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    assert client.get("/races", headers=headers).status_code == (200 if answered else 403)


@pytest.mark.parametrize("path", ["/races", "/races/x/stop", "/races/x/resume", "/races/x/note"])
def test_forms_of_other_sites_change_nothing(client, path):
    for site in ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, {"Origin": "http://evil.example"}):
        assert client.post(path, headers={"Host": "localhost", **site}).status_code == 403


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("/?tab=step&who=gd,adam&step=3", "/step?who=gd,adam&step=3"),
        ("/?tab=race", "/races"),
        ("/?tab=race&race=suite/digits", "/races/suite/digits"),
        ("/?tab=race&task=digits&size=small", "/races?task=digits&size=small"),
        ("/?tab=claims", "/claims"),
        ("/?tab=nothing&surface=bowl", "/?surface=bowl"),
        ("/?tab=race&race=//evil.example", "/races/evil.example"),
    ],
)
def test_urls_of_earlier_versions_lead_to_their_page(client, former, now):
    answer = client.get(former, headers={"Host": "localhost"})
    assert answer.status_code == 302
    assert answer.headers["Location"] == now


def test_it_listens_on_loopback_and_says_so_when_a_port_is_taken(tmp_path: Path):
    app = make(Races(tmp_path))
    server = listen(app, 0, "127.0.0.1")
    host, port = server.socket.getsockname()
    assert host == "127.0.0.1"
    with pytest.raises(PortTakenError, match=f"port {port}.*--port {port + 1}"):
        listen(app, port, "127.0.0.1")
    server.server_close()
    with pytest.raises(ValueError, match="an address of this machine"):
        listen(app, 0, "no such host")


def test_without_flask_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr("gradprix.cli._app.find_spec", lambda name: None)
    answer = CliRunner().invoke(cli.app, ["app"])
    assert answer.exit_code == 2
    assert "pip install 'gradprix[app]'" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_one_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        answer = CliRunner().invoke(cli.app, ["app", "--no-open", "--port", str(other.getsockname()[1])])
    assert answer.exit_code == 2
    assert "choose another port" in answer.stderr


def test_a_malformed_origin_is_refused(tmp_path: Path) -> None:
    client = make(Races(tmp_path), "127.0.0.1").test_client()

    for origin in ("http://[", "null", "http://elsewhere"):
        assert client.get("/", headers={"Host": "127.0.0.1:8050", "Origin": origin}).status_code == 403
    assert client.get("/", headers={"Host": "127.0.0.1:8050", "Origin": "http://127.0.0.1:8050"}).status_code == 200


def test_the_app_starts_without_importing_what_is_slow_to_import():
    program = (
        "import sys\n"
        "from gradprix.app import server\n"
        "from gradprix.app.race_processes import Races\n"
        "from pathlib import Path\n"
        "client = server.make(Races(Path('runs'))).test_client()\n"
        "for path in ('/', '/static/landscape/rules.js', '/static/landscape/surfaces.js', '/vendor/plotly.min.js'):\n"
        "    assert client.get(path, headers={'Host': 'localhost'}).status_code == 200, path\n"
        "print({'torch', 'numba', 'pandas', 'matplotlib', 'plotly', 'scipy'} & sys.modules.keys())\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


@pytest.mark.parametrize("path", ["/shared/page.css", "/vendor/plotly.min.js"])
def test_no_file_stays_open_if_the_browser_drops_the_connection(client, path):
    answer = client.get(path, headers={"Host": "localhost"})  # neither read nor closed
    assert answer.status_code == 200
    assert not [file for file in psutil.Process().open_files() if file.path.endswith(path.rpartition("/")[2])]
