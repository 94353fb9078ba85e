"""`lmcourse lab`: a real server, from its start page to Ctrl-C."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmcourse import cli, paths
from lmcourse.commands import lab

ROOT = paths.PACKAGE.parent


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(port, path):
    """Return the status of a GET request, and its Location header."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    return response.status, response.getheader("Location")


def wait_for(log, pattern, seconds=60):
    """Return the first match of the pattern in a growing log."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = re.search(pattern, log.read_text())
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{pattern} is not in the log after {seconds} seconds:\n{log.read_text()}")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_server_answers_opens_the_start_page_and_stops(tmp_path, free_port, ending):
    log = tmp_path / "log"
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path)}
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "lmcourse", "lab", "--no-browser", "--port", str(free_port)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        token = wait_for(log, r"token=([0-9a-f]+)")[1]
        assert get(free_port, f"/lab?token={token}")[0] == 200
        assert get(free_port, "/api/contents")[0] == 403  # without the token, nothing
        assert get(free_port, f"/api/contents/{lab.START_PAGE}?token={token}")[0] == 200
        # Jupyter sends whoever opens the server's address to the start page.
        assert get(free_port, f"/?token={token}") == (302, f"/lab/tree/{lab.START_PAGE}?token={token}")
        server.send_signal(ending)
        assert server.wait(timeout=30) == 0
    finally:
        server.kill()
    assert log.read_text().endswith("\nJupyterLab has stopped.\n")
    with pytest.raises(ConnectionRefusedError):
        get(free_port, "/lab")


def test_the_arguments_are_jupyterlabs_and_the_clone_is_served(monkeypatch):
    monkeypatch.setattr(lab, "running_as_root", lambda: False)
    call = lab.command(ROOT, ["--no-browser", "--port", "8899"])
    assert call[:3] == [sys.executable, "-m", "jupyterlab"]
    assert call[-4:] == ["--no-browser", "--port", "8899", str(ROOT)]
    assert "--allow-root" not in call


def test_root_in_a_container_is_allowed(monkeypatch):
    monkeypatch.setattr(lab, "running_as_root", lambda: True)
    assert lab.command(ROOT, []).count("--allow-root") == 1
    assert lab.command(ROOT, ["--allow-root"]).count("--allow-root") == 1


def test_a_kernel_finds_the_clone_first_wherever_it_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # -S: as if only the requirements were installed, and lmcourse itself were not.
    where = subprocess.run(
        [sys.executable, "-S", "-c", "import sys; print(sys.path[1:3]); import lmcourse"],
        cwd=tmp_path,
        env=lab.environment(ROOT),
        capture_output=True,
        text=True,
    )
    assert where.returncode == 0, where.stderr
    assert where.stdout.strip() == str([str(ROOT), str(tmp_path)])


def test_a_terminal_of_the_server_finds_this_environments_commands(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    assert lab.environment(ROOT)["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"


def test_without_jupyterlab_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["lab"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmcourse lab: JupyterLab is not installed")
    assert "pip install -r requirements.txt" in error
    assert error.count("\n") == 1


def test_without_a_clone_one_line_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "site-packages" / "lmcourse")
    assert cli.main(["lab"]) == 2
    assert "installed without its clone" in capsys.readouterr().err


def test_a_server_that_will_not_stop_is_killed(monkeypatch):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    monkeypatch.setattr(lab, "SECONDS_TO_STOP", 0.5)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as stubborn:
        stubborn.stdout.readline()
        lab.stop(stubborn)
        assert stubborn.returncode == -signal.SIGKILL
