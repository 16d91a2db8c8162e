"""Released files: from a folder, the hub's cache or the hub; without a network, a line that says what to do."""

import os
import subprocess
import sys

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

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
