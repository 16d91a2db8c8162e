"""The server of `t2i serve`, over a translator that answers at once: what it lets through, HTTP, the command."""

import asyncio
import json
import secrets
import socket
from types import SimpleNamespace

import httpx
import pytest
from fakes import FakeTranslator
from ml_collections import ConfigDict
from PIL import Image
from test_page import VALUES, pictures, upload

from t2i_jax import cli
from t2i_jax.cli import serve
from t2i_jax.config import load_config
from t2i_jax.page.answers import Answers


def through_gate(method, path, body=b"", most=100):
    """Status that the gate gives, and what the application behind it received."""
    received, sent = [], []

    async def app(scope, receive, send):
        received.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    pytest.importorskip("gradio")
    from t2i_jax.page.gate import Gate

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
    asyncio.run(Gate(app, most)(scope, receive, send))
    return sent[0], received


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", b"", 200),
        ("GET", "/assets/index-Dp_1.js", b"", 200),
        ("GET", "/assets/../../etc/passwd", b"", 404),
        ("GET", "/gradio_api/file=/etc/passwd", b"", 404),
        ("GET", "/gradio_api/file/etc/passwd", b"", 404),
        ("GET", "/gradio_api/proxy=http://example.com", b"", 404),
        ("GET", "/monitoring/summary", b"", 404),
        ("POST", "/gradio_api/upload", b"", 404),
        ("POST", "/gradio_api/call/draw", b'{"data": []}', 404),
        ("POST", "/gradio_api/vibe-edit", b"{}", 404),
        ("POST", "/gradio_api/component_server", b"{}", 404),
        ("PUT", "/", b"", 404),
        ("POST", "/gradio_api/queue/join", b'{"data": ["a", 1, null]}', 200),
        ("POST", "/gradio_api/queue/join", b'{"data": [{"path": "/etc/passwd"}]}', 400),
        ("POST", "/gradio_api/queue/join", b'{"data": [["/etc/passwd"]]}', 400),
        ("POST", "/gradio_api/queue/join", b"[" * 90, 400),
        ("POST", "/gradio_api/queue/join", b'{"data": ["' + b"a" * 100 + b'"]}', 413),
    ],
)
def test_the_server_answers_what_the_page_asks_for_and_nothing_else(method, path, body, status):
    start, received = through_gate(method, path, body)
    assert start["status"] == status
    assert received == ([body] if status == 200 else [])
    if status == 200:
        assert b"default-src 'self'" in dict(start["headers"])[b"content-security-policy"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page's address, served by gradio in this process, and the folder that gradio calls its cache."""
    pytest.importorskip("gradio")
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(cache))
        from t2i_jax.page import layout

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        page = layout.build(Answers({"a": FakeTranslator()}, max_images=8, time_limit=60.0), ["a red seven"])
        yield layout.launch(page, "127.0.0.1", port).rstrip("/"), cache
        page.close(verbose=False)


@pytest.fixture
def request_of(served):
    """`request_of(name, *arguments)`: the JSON by which the page calls one of its functions."""
    known = httpx.get(f"{served[0]}/config").json()["dependencies"]
    numbers = {function["api_name"]: function["id"] for function in known}

    def call(name, *arguments):
        return {"data": list(arguments), "fn_index": numbers[name], "session_hash": secrets.token_hex()}

    return call


@pytest.fixture
def ask(served, request_of):
    """`success, output = ask(name, *arguments)`: what a function of the page answers at last, as a browser asks."""

    def call(name, *arguments):
        asked = request_of(name, *arguments)
        joined = httpx.post(f"{served[0]}/gradio_api/queue/join", json=asked)
        assert joined.status_code == 200, joined.text
        session = {"session_hash": asked["session_hash"]}
        with httpx.stream("GET", f"{served[0]}/gradio_api/queue/data", params=session) as stream:
            lines = (json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line)
            last = next(line for line in lines if line["msg"] == "process_completed")
        return last["success"], last["output"]

    return call


def test_over_http(ask):
    success, output = ask("draw", "a", "a red seven", 0, 2, *VALUES)
    assert success
    status, shown = output["data"]
    assert "done" in status
    assert len(pictures(shown)) == 2
    _, output = ask("reconstruct", "a", upload(Image.new("RGB", (32, 32))))
    assert "mean error 0.000" in output["data"][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "", 0, 2], "there is no prompt"),
        (["a", "a red seven", -1, 2], "seed -1 is below 0"),
        (["a", "a red seven", 0, 9], "number of pictures 9 is above 8"),
    ],
)
def test_errors_over_http(ask, arguments, said):
    success, output = ask("draw", *arguments, *VALUES)
    assert success
    assert f'role="alert">{said}' in output["data"][0]
    assert pictures(str(output)) == []


def test_a_run_is_none_but_those_served(ask):
    success, output = ask("draw", "/etc", "a red seven", 0, 2, *VALUES)
    assert not success
    assert "/etc is not in the list of choices" in output["error"]


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=/etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd", "/assets/..%2f..%2fetc/passwd"]
)
def test_no_path_is_opened(served, path):
    assert httpx.get(served[0] + path).status_code == 404


def test_nobody_passes_those_who_wait(served, request_of):
    asked = request_of("draw", "a", "a red seven", 0, 2, *VALUES)
    assert httpx.post(f"{served[0]}/gradio_api/run/predict", json=asked).status_code == 404


def test_nothing_is_written(served, ask):
    assert ask("draw", "a", "a red seven", 0, 2, *VALUES)[0]
    assert list(served[1].rglob("*.*")) == []


def test_a_name_of_the_internet_is_not_this_machine(served):
    assert httpx.get(served[0], headers={"host": "example.com"}).status_code == 400


def test_the_page_names_no_other_host(served):
    theme = httpx.get(f"{served[0]}/theme.css").text
    assert "http" not in theme.replace("http://www.w3.org", "")  # namespaces of SVG


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "0"], "--port 0 is out of range; give 1 to 65535"),
        (["--max-images", "65"], "--max-images 65 is out of range; give 1 to 64"),
        (["--time-limit", "nan"], "--time-limit nan is out of range"),
        (["--host", "203.0.113.7"], "--host 203.0.113.7 --port 7860: "),
    ],
)
def test_the_commands_errors(options, said, tmp_path, capsys):
    assert cli.main(["serve", "--run", str(tmp_path), *options]) == 2
    assert capsys.readouterr().err.startswith(f"t2i: {said}")


def test_no_gradio_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["serve", "--run", "run"]) == 2
    assert "pip install 't2i-jax[demo]'" in capsys.readouterr().err


def test_the_command(monkeypatch, tmp_path, capsys):
    pytest.importorskip("gradio")
    pipe = FakeTranslator()
    pipe.config = ConfigDict({"shown_captions": ("a red seven",)})
    monkeypatch.setattr("t2i_jax.load", lambda run: pipe)
    monkeypatch.setattr("t2i_jax.cli.serve._wait", lambda: None)
    monkeypatch.setattr("t2i_jax.page.layout.launch", lambda page, host, port: f"http://{host}:{port}")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with socket.create_server(("0.0.0.0", 0)) as free:
        port = free.getsockname()[1]
    runs = ["--run", str(tmp_path / "a"), "--run", str(tmp_path / "b")]
    assert cli.main(["serve", *runs, "--host", "0.0.0.0", "--port", str(port)]) == 0
    out, err = capsys.readouterr()
    assert out == f"http://0.0.0.0:{port}\n"
    assert "there is no password, and nothing is encrypted" in err


def test_examples_come_from_the_config_or_from_the_data(data_dir, tmp_path):
    config = load_config("translator:smoke")
    config.data.data_dir = str(data_dir)
    assert serve._examples(SimpleNamespace(config=config)) == list(config.shown_captions)[:6]
    config.shown_captions = ()
    found = serve._examples(SimpleNamespace(config=config))
    assert len(found) == 6
    assert all(caption.startswith(("a ", "two ", "three ", "four ")) for caption in found)
    config.data.data_dir = str(tmp_path / "elsewhere")
    assert serve._examples(SimpleNamespace(config=config)) == []
