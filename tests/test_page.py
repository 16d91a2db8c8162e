"""The page of `t2i serve` over a translator that answers at once: its functions, and what its server answers."""

import asyncio
import base64
import io
import json
import re
import socket

import httpx
import numpy as np
import pytest
from fakes import FakeTokenizer, FakeTranslator
from PIL import Image

from t2i_jax import cli
from t2i_jax.errors import UserError
from t2i_jax.page.answers import MAX_UPLOAD, Answers
from t2i_jax.page.figures import heat, over, over_picture
from t2i_jax.pictures import read_note

VALUES = [None] * 7


@pytest.fixture
def answers():
    return Answers({"a": FakeTranslator(), "b": FakeTranslator(digest="b")}, max_images=8, time_limit=60.0)


def pictures(shown: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r'<img src="data:image/png;base64,([^"]*)"', shown)]


def upload(picture: Image.Image | bytes) -> str:
    if not isinstance(picture, bytes):
        content = io.BytesIO()
        picture.save(content, "PNG")
        picture = content.getvalue()
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def test_pictures_appear_as_they_are_drawn_and_say_how(answers, tmp_path, monkeypatch):
    steps = list(answers.draw("a", "a red seven", 3, 2, 0.25, *VALUES[1:]))
    assert [re.search('value="([^"]*)"', status)[1] for status, _ in steps[:3]] == ["0.000", "0.125", "0.250"]
    assert [len(pictures(shown)) for _, shown in steps] == [0, *[2] * 8]
    assert "download" not in steps[-2][1]
    assert answers.runs["a"].calls == [(["a red seven"], 2, 3, {"temperature": 0.25})]
    monkeypatch.setattr("t2i_jax.load", lambda run: answers.runs["a"])
    run = ["sample", "--run", str(tmp_path), "--prompt", "a red seven", "-n", "2", "--seed", "3"]
    assert cli.main([*run, "--temperature", "0.25", "--out", f"{tmp_path}/of/"]) == 0
    for index, content in enumerate(pictures(steps[-1][1])):
        assert content == (tmp_path / "of" / f"00000_{index:02d}.png").read_bytes()
        saved = re.findall(r'href="data:image/png;base64,([^"]*)" download="picture-3-\d.png"', steps[-1][1])
        assert base64.b64decode(saved[index]) == content
    assert read_note(tmp_path / "of" / "00000_01.png")["temperature"] == 0.25


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "  "}, "there is no prompt"),
        ({"prompt": None}, "there is no prompt"),
        ({"prompt": "a " * 300}, "the prompt has 600 characters; shorten it to 500"),
        ({"prompt": "a\nred\x1b[2J"}, "signs that are not printed"),
        ({"seed": -1}, "seed -1 is below 0"),
        ({"seed": 2**32}, "seed 4294967296 is above 4294967295"),
        ({"seed": 1.5}, "seed 1.5 is no whole number"),
        ({"seed": None}, "seed None is no number"),
        ({"number": 9}, "number of pictures 9 is above 8"),
        ({"number": 0}, "number of pictures 0 is below 1"),
        ({"temperature": "hot"}, "temperature 'hot' is no number"),
        ({"temperature": float("nan")}, "temperature nan is not finite"),
        ({"temperature": -1}, "temperature -1 is below 0"),
    ],
)
def test_what_cannot_be_drawn(answers, changes, said):
    asked = {"prompt": "a red seven", "seed": 0, "number": 2, "temperature": None} | changes
    with pytest.raises(UserError, match=re.escape(said)):
        list(answers.draw("a", *asked.values(), *VALUES[1:]))
    said = said.replace("number of pictures", "picture")
    with pytest.raises(UserError, match=re.escape(said)):
        answers.inside("a", *asked.values(), *VALUES[1:])
    assert answers.runs["a"].calls == []


def test_unknown_words_are_named_and_nothing_of_a_prompt_is_html(answers):
    for status, shown in answers.draw("a", 'a <b>fox</b> {{seven}} ${1} "', 0, 1, *VALUES):
        assert "cannot follow them: &lt;b&gt;fox&lt;/b&gt;</p>" in status
        assert not re.search(r"<b>|\{|\$", status + shown)


def test_a_request_ends_in_time(answers, monkeypatch):
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    steps = answers.draw("a", "a red seven", 0, 1, *VALUES)
    with pytest.raises(UserError, match="drawing took longer than 60 s"):
        list(steps)


def test_two_sides(answers):
    *_, (status, left, right) = answers.compare("a red seven", 1, 2, "a", *VALUES, "b", 0.0, *VALUES[1:])
    assert "right" in status
    assert len(pictures(left)) == len(pictures(right)) == 2
    assert [answers.runs[run].calls[0][3] for run in "ab"] == [{}, {"temperature": 0.0}]


def test_what_the_model_knew(answers):
    shown = answers.inside("a", "a red seven", 0, 2, *VALUES)
    assert len(pictures(shown)) == 2 + 3
    drawn = FakeTranslator()(["a red seven"], 2)[0, 1]
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(pictures(shown)[0]))), drawn)
    assert "0.00 to 3.00 nats" in shown
    assert "seven: 33% of the attention" in shown


def test_values_over_cells():
    cells = [(0, 0, 2, 2), (0, 0, 2, 2), (2, 0, 4, 4)]
    values = over_picture(np.float32([1, 3, 4]), cells, (4, 4))
    np.testing.assert_array_equal(values, [[2, 2, 0, 0], [2, 2, 0, 0], [4, 4, 4, 4], [4, 4, 4, 4]])
    colours = heat(values, 4.0)
    assert colours[3, 3].sum() > colours[0, 0].sum() > colours[0, 3].sum()
    np.testing.assert_array_equal(
        lit(np.full((4, 4, 1), 100, np.uint8), over)[..., 0], np.uint8(25 + over / 4 * 75)
    )


@pytest.mark.parametrize("channels", [3, 1])
def test_a_picture_goes_through_the_tokenizer(answers, channels):
    answers.runs["a"].tokenizer = FakeTokenizer(channels=channels)
    shown = answers.reconstruct("a", upload(Image.new("RGB", (100, 50), (200, 200, 200))))
    before, after = (np.array(Image.open(io.BytesIO(content))) for content in pictures(shown))
    assert before.shape == after.shape == ((32, 32, 3) if channels == 3 else (32, 32))
    assert "1 tokens, 256 codes" in shown


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("", "no picture is chosen"),
        ("/etc/passwd", "did not arrive as the page sends it"),
        ("data:image/png;base64,@@@@", "did not arrive whole"),
        (upload(b"\x89PNG\r\n\x1a\nrubbish"), "the picture is "),
        (upload(b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run"), "the picture is in no format that is read"),
        (upload(Image.new("RGB", (4, 4))), "below 8 pixels a side"),
        (upload(bytes(MAX_UPLOAD + 3)), "above 8 MiB"),
    ],
)
def test_a_hostile_upload_is_one_line(answers, sent, said):
    with pytest.raises(UserError, match=re.escape(said)):
        answers.reconstruct("a", sent)


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
def ask(served):
    """`event, data = ask(name, *arguments)`: the last event of a function of the page, over HTTP."""

    def call(name, *arguments):
        joined = httpx.post(f"{served[0]}/gradio_api/call/{name}", json={"data": list(arguments)})
        assert joined.status_code == 200, joined.text
        with httpx.stream("GET", f"{served[0]}/gradio_api/call/{name}/{joined.json()['event_id']}") as stream:
            lines = [line for line in stream.iter_lines() if line]
        return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))

    return call


def test_over_http(ask):
    event, (status, shown) = ask("draw", "a", "a red seven", 0, 2, *VALUES)
    assert event == "complete"
    assert "done" in status
    assert len(pictures(shown)) == 2
    assert ask("reconstruct", "a", upload(Image.new("RGB", (32, 32))))[0] == "complete"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "", 0, 2], "there is no prompt"),
        (["a", "a red seven", -1, 2], "seed -1 is below 0"),
        (["a", "a red seven", 0, 9], "number of pictures 9 is above 8"),
        (["/etc", "a red seven", 0, 2], "/etc"),
    ],
)
def test_errors_over_http(ask, arguments, said):
    event, data = ask("draw", *arguments, *VALUES)
    assert event == "error"
    assert said in str(data)
    assert "Traceback" not in str(data)


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=/etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd", "/assets/..%2f..%2fetc/passwd"]
)
def test_no_path_is_opened(served, path):
    assert httpx.get(served[0] + path).status_code == 404


def test_nobody_reads_anothers_pictures_and_nothing_is_written(served, ask):
    assert ask("draw", "a", "a red seven", 0, 2, *VALUES)[0] == "complete"
    assert httpx.get(f"{served[0]}/gradio_api/call/draw/{'0' * 32}").status_code in (404, 500)
    assert list(served[1].rglob("*.*")) == []


def test_a_name_of_the_internet_is_not_this_machine(served):
    assert httpx.get(served[0], headers={"host": "example.com"}).status_code == 400
    assert "http" not in re.sub(rf"{served[0]}|www.w3.org", "", httpx.get(f"{served[0]}/theme.css").text)


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
    pipe.config = FakeTokenizer().config
    pipe.config.shown_captions = ("a red seven",)
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
