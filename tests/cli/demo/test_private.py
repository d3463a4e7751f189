"""The page serves this machine's user, and what was dropped is gone when the command is."""

from __future__ import annotations

import http.client
import importlib.util
import io
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

import zoo
from cli.demo.scratch import PREFIX, scratch_folder

ROOT = Path(__file__).resolve().parents[3]
HAS_GRADIO = importlib.util.find_spec("gradio") is not None
needs_gradio = pytest.mark.skipif(not HAS_GRADIO, reason="no gradio: pip install 'fulgurite[demo]'")
NAME = "spiking_cnn_nano"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Host and port of a running page."""
    from cli.demo.classification import build
    from cli.demo.server import launch

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("dropped")))
        page = build(zoo.load(NAME), NAME)
        yield urlsplit(launch(page)).netloc
        page.close(verbose=False)


def ask(address, method="GET", path="/config", **headers):
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@needs_gradio
def test_its_own_address_is_served(address):
    port = address.rpartition(":")[2]
    for host in (address, f"localhost:{port}"):
        assert ask(address, Host=host).status == 200
        assert ask(address, Host=host, Origin=f"http://{host}").status == 200
    assert (
        ask(address, path="/", Host=address, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status
        == 200
    )


@needs_gradio
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "localhost:1"},
        {"Host": "[::1]:{port}"},
        {"Host": "127.0.0.1:{port}", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1:{port}", "Origin": "http://localhost:1"},
        {"Host": "127.0.0.1:{port}", "Origin": "https://127.0.0.1:{port}"},
        {"Host": "127.0.0.1:{port}", "Origin": "null"},
        {"Host": "127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/config"), ("POST", "/gradio_api/upload"), ("OPTIONS", "/")]
)
def test_others_are_refused(method, path, headers, address):
    port = address.rpartition(":")[2]
    sent = {name: value.format(port=port) for name, value in headers.items()}
    answer = ask(address, method, path, **sent)
    assert answer.status == 403
    assert answer.getheader("Access-Control-Allow-Origin") is None


@needs_gradio
@pytest.mark.parametrize(
    ("ends", "status"), [("SIGTERM", 143), pytest.param("SIGHUP", 129, marks=pytest.mark.slow)]
)
def test_dropped_images_are_deleted(ends, status, tmp_path):
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "demo", NAME, "--no-browser"],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    address = urlsplit(process.stdout.readline().split()[1]).netloc
    file = io.BytesIO()
    Image.new("L", (28, 28)).save(file, "PNG")
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + file.getvalue()
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request(
        "POST",
        "/gradio_api/upload",
        body + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert connection.getresponse().status == 200
    connection.close()
    assert list(tmp_path.rglob(f"{PREFIX}*/**/*.png"))
    process.send_signal(getattr(signal, ends))
    assert process.wait(30) == status
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_what_killed_programs_left_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, running, foreign = (
        tmp_path / f"{PREFIX}{ended.pid}-a",
        tmp_path / f"{PREFIX}{os.getppid()}-b",
        tmp_path / f"{PREFIX}notes",
    )
    for folder in (left, running, foreign):
        folder.mkdir()
        (folder / "image.png").touch()
    with scratch_folder() as scratch:
        assert scratch.is_dir()
        assert not left.exists()
    assert not scratch.exists()
    assert (running / "image.png").exists()
    assert (foreign / "image.png").exists()
