"""Released files: from a folder, the hub's cache or the hub; without a network, a line that says what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hub_server
import huggingface_hub
import pytest
from huggingface_hub import constants, errors

import t2i_jax
from t2i_jax import cli
from t2i_jax.cli import checks
from t2i_jax.convert import hub
from t2i_jax.errors import UserError

NAME, FILE = "microsoft/resnet-50", "model.safetensors"
URL = f"https://huggingface.co/{NAME}/resolve/main/{FILE}"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """An empty cache, and a hub whose two doors are shut."""

    def shut(*_, **__):
        raise AssertionError("asked the hub")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", shut)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", shut)


def refused(name):
    with pytest.raises(UserError) as error:
        hub.find(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_or_file_is_used_as_it_is(tmp_path):
    folder = tmp_path / "microsoft" / "resnet-50"  # named as on the hub, but here
    folder.mkdir(parents=True)
    assert f"holds no {FILE}" in refused(folder)
    (folder / FILE).touch()
    assert hub.find(folder) == hub.find(folder / FILE) == folder / FILE
    assert hub.find(NAME).samefile(folder / FILE)


def test_a_cached_file_is_found_without_the_hub(tmp_path):
    repo = tmp_path / "cache" / "models--microsoft--resnet-50"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "snapshots" / "abc" / FILE).touch()
    assert hub.find(NAME) == repo / "snapshots" / "abc" / FILE


def test_what_is_not_cached_is_downloaded(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: asked.append((url, timeout)))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: str(tmp_path / name / file))
    assert hub.find(NAME) == tmp_path / NAME / FILE
    assert asked == [(URL, hub.TIMEOUT)]
    assert hub.TIMEOUT <= 10


@pytest.mark.parametrize("door", ["get_hf_file_metadata", "hf_hub_download"])
@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Name or service\nnot known"),
        errors.OfflineModeIsEnabled("offline mode"),
        errors.LocalEntryNotFoundError("no such entry"),
        RuntimeError("data processing error"),
        OSError(28, "No space left on device"),
    ],
)
def test_what_cannot_be_fetched_is_one_line_with_the_way_out(monkeypatch, door, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: None)
    monkeypatch.setattr(huggingface_hub, door, fail)
    message = refused(NAME)
    assert f"{NAME} is no folder here, and its {FILE} could not be fetched ({type(error).__name__}: " in message
    assert f"download {URL}" in message
    assert "put it into a folder, and name that folder instead" in message


@pytest.mark.parametrize("name", ["/no/such/folder", "weights/of/mine", "../weights"])
def test_a_path_that_is_no_name_never_asks_the_hub(name):
    assert "is neither a folder here nor the name of a model" in refused(name)


def test_the_real_hub_client_says_that_it_is_offline(tmp_path):
    code = "from t2i_jax.convert import hub; hub.find('nobody/no-such-model')"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    root = str(hub.__file__).removesuffix("t2i_jax/convert/hub.py")
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True, timeout=60
    )
    line = done.stderr.splitlines()[-1]
    assert "UserError: nobody/no-such-model is no folder here" in line
    assert "OfflineModeIsEnabled" in line


EXPORT = Path(__file__).parent / "golden" / "export_1"


@pytest.fixture
def at_hub(tmp_path):
    """`fetch(name, address)`: another process looks for a run by the real client, at a hub of ours or at none."""

    def fetch(name, address):
        env = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_CACHE": str(tmp_path / "cache")}
        env["PYTHONPATH"] = str(Path(__file__).parents[1])
        code = f"from t2i_jax.convert import hub; print(hub.find_run({name!r}))"
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return fetch


def test_a_run_is_fetched_once_and_nothing_of_it_that_could_be_run(at_hub, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(EXPORT, repository)
    for name in ("modeling.py", "pytorch_model.bin", "parents/tokenizer/state.pkl"):
        (repository / name).write_text("import os")
    with hub_server.serving("someone/digits", repository, revision="v1") as (address, asked):
        first = at_hub("someone/digits@v1", address)
        assert first.returncode == 0, first.stderr
        fetched = {path.name for path in Path(first.stdout.strip()).rglob("*") if path.is_file()}
        assert fetched == {"config.json", "model.safetensors", "text_tokenizer.json"}
        other = at_hub("someone/digits@v2", address)
        assert "someone/digits@v2 is no folder here, and could not be fetched" in other.stderr.splitlines()[-1]
        asked.clear()
        assert at_hub("someone/digits@v1", address).stdout == first.stdout
        assert asked == []
    assert t2i_jax.load(first.stdout.strip()).digest == t2i_jax.load(EXPORT).digest


def test_a_run_that_cannot_be_fetched_is_one_line(at_hub):
    done = at_hub("someone/digits", "http://127.0.0.1:9")
    assert done.stderr.splitlines()[-1].startswith(
        "t2i_jax.errors.UserError: someone/digits is no folder here, and could not be fetched from huggingface.co"
    )


@pytest.mark.parametrize("name", ["runs/mine", "../x", "/tmp/x", "one", "a/b/c", "./a/b", "~/x/y"])
def test_a_path_is_never_looked_for_on_the_hub(name, monkeypatch, tmp_path):
    def asked(*_, **__):
        raise AssertionError(name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", asked)
    (tmp_path / "runs").mkdir()
    assert hub.find_run(name) == Path(name)
    with pytest.raises(UserError):
        t2i_jax.load(name)


def test_commands_and_load_take_a_name(monkeypatch):
    asked = []

    def fetch(name, revision, **_):
        asked.append((name, revision))
        return str(EXPORT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert checks.check_run("someone/digits") == EXPORT
    assert t2i_jax.load("someone/digits@v1").digest == t2i_jax.load(EXPORT).digest
    assert asked == [("someone/digits", None), ("someone/digits", "v1")]
    assert checks.results_folder("someone/digits") == Path()  # not into the hub's cache
    assert checks.results_folder(EXPORT) == EXPORT


class Api:
    """Stands for HfApi; `fails` at one of its two calls."""

    def __init__(self, at="", error=None):
        self.calls, self.at, self.error = [], at, error

    def create_repo(self, name, private):
        self._call("create_repo", name, private)
        return f"https://huggingface.co/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message):
        self._call("upload_folder", repo_id, sorted(path.name for path in Path(folder_path).iterdir()))

    def _call(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name == self.at:
            raise self.error


def export(monkeypatch, capsys, api, *options):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    code = cli.main(["export", "--run", str(EXPORT), "--out", "shared", "--push-to-hub", "me/digits", *options])
    return code, *capsys.readouterr()


def test_an_export_is_uploaded_into_a_new_repository(monkeypatch, capsys):
    api = Api()
    code, out, _ = export(monkeypatch, capsys, api, "--private")
    assert code == 0
    assert out.splitlines() == ["shared", "https://huggingface.co/me/digits"]
    names = ["README.md", "config.json", "model.safetensors", "parents", "samples.png", "text_tokenizer.json"]
    assert api.calls == [("create_repo", "me/digits", True), ("upload_folder", "me/digits", names)]
    assert 't2i_jax.load("me/digits")' in Path("shared/README.md").read_text()


@pytest.mark.parametrize(
    ("at", "status", "said"),
    [
        ("create_repo", 409, "there is one already"),
        ("create_repo", 403, "Forbidden"),
        ("upload_folder", 500, "Busy"),
    ],
)
def test_an_upload_that_fails_leaves_the_folder_and_one_line(monkeypatch, capsys, at, status, said):
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    error = RuntimeError(f"{said}\nfor url")
    error.response = response
    code, _, err = export(monkeypatch, capsys, Api(at, error))
    assert code == 2
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith("`hf upload me/digits shared` puts it into a repository, an old one too")
    assert Path("shared/config.json").is_file()


def test_what_cannot_be_uploaded_is_said_before_anything_is_made(monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    for name, said in (("digits", "is no name on huggingface.co"), ("me/digits", "there is no token")):
        assert cli.main(["export", "--run", str(EXPORT), "--out", "shared", "--push-to-hub", name]) == 2
        assert said in capsys.readouterr().err
    assert not Path("shared").exists()
