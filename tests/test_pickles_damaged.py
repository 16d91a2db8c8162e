"""Pickled modules that would fill the memory, that are damaged, or that are something else."""

import io
import struct
import zipfile

import numpy as np
import pytest
from torch_files import (
    Op,
    dump,
    instance,
    module,
    name,
    refusal_of,
    saved,
    storage,
    streamed,
    tensor,
    zipped,
)

from t2i_jax.convert.pickles import read_module
from t2i_jax.errors import UserError

ROOT, PART = "dall_e.encoder.Encoder", "torch.nn.modules.container.Sequential"
CLASSES = {ROOT, PART}
FORMATS = {"zip": zipped, "stream": streamed}


def arrays(dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {"w": (3, 2), "blocks.input.w": (4, 3, 1, 1), "blocks.input.b": (4,), "blocks.out.0.deep": (1,)}
    return {dotted: rng.normal(size=shape).astype(dtype) for dotted, shape in shapes.items()}


@pytest.fixture
def refusal(tmp_path):
    """The one line with which a file of these bytes is refused."""
    return lambda raw: refusal_of(tmp_path, raw, CLASSES)


# --- what must not fill the memory


def test_a_place_far_away_in_the_unpicklers_memory(refusal):
    assert "at place" in refusal(zipped(Op(b"Nr" + struct.pack("<I", 2**31)), {}))


def test_bytes_reserved_before_they_are_there(refusal):
    assert "bytearray8" in refusal(zipped(Op(b"\x96" + struct.pack("<Q", 2**40)), {}))
    refusal(zipped(Op(b"X" + struct.pack("<I", 2**31) + b"short"), {}))


WHOLE, SHAPE, BYTES = "does not lie whole in storage '0'", "no shape", "bytes in storage '0'"


@pytest.mark.parametrize(
    ("count", "shape", "more", "said"),
    [
        (4, (5,), {}, WHOLE),
        (4, (2**40, 2**40), {}, WHOLE),
        (4, (2**40,), {"strides": (0,)}, WHOLE),
        (4, (4,), {"offset": 1}, WHOLE),
        (4, (2,), {"strides": (2,)}, WHOLE),
        (4, (2, 2), {"strides": (1, 3)}, WHOLE),
        (4, (2, 2), {"strides": (1, 1)}, WHOLE),
        (4, (2,), {"offset": -1}, SHAPE),
        (4, (-2, -2), {}, SHAPE),
        (4, ((2, 2), 2**40), {"strides": (1, 1)}, SHAPE),
        (4, (2.0, 2), {"strides": (2, 1)}, SHAPE),
        (4, (1,) * 2000, {}, SHAPE),
        (4, (1, 2), {"strides": (1,)}, SHAPE),
        (4, (2, 2), {"strides": (1,)}, SHAPE),
    ],
)
@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_tensors_that_do_not_lie_whole_in_their_storage(refusal, write, count, shape, more, said):
    root = module(name(ROOT), {"w": tensor(storage("0", count), shape, **more)})
    assert said in refusal(write(root, {"0": np.zeros(4, np.float32).tobytes()}))


@pytest.mark.parametrize("count", [2**40, 3])
def test_storages_that_do_not_lie_whole_in_the_file(refusal, count):
    root = module(name(ROOT), {"w": tensor(storage("0", count), (3,))})
    assert BYTES in refusal(zipped(root, {"0": bytes(16)}))
    assert "numbers in storage '0'" in refusal(streamed(root, {"0": bytes(16)}))
    lying = streamed(root, {"0": bytes(16)}).replace(struct.pack("<q", 4), struct.pack("<q", count))
    assert (BYTES if count > 4 else "goes on") in refusal(lying)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_storages_that_contradict_themselves(refusal, write):
    raw = {"0": bytes(16)}
    two = {"a": tensor(storage("0", 4), (4,)), "b": tensor(storage("0", 2, "DoubleStorage"), (2,))}
    assert "twice" in refusal(write(module(name(ROOT), two), raw))
    view = tensor(storage("0", 4, view=[("1", 0, 4)]), (4,))
    assert "view" in refusal(write(module(name(ROOT), {"w": view}), raw))
    made_up = tensor(Op(dump(("float32", 4, "0"))), (4,))
    refusal(write(module(name(ROOT), {"w": made_up}), {}))


def test_archives_that_declare_more_than_they_have(refusal):
    root = module(name(ROOT), {"w": tensor(storage("0", 10**6), (10**6,))})
    bomb = zipped(root, {"0": bytes(4 * 10**6)}, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**5
    assert "compressed" in refusal(bomb)
    raw = zipped(root, {"0": bytes(16)})
    entry = raw.rindex(b"PK\x01\x02")  # of the last file in the directory; its size stands at 24
    assert raw[entry + 46 :].startswith(b"archive/data/0")
    lying = raw[: entry + 24] + struct.pack("<I", 4 * 10**6) + raw[entry + 28 :]
    assert "declares more bytes" in refusal(lying)


# --- what is damaged, or no such file


@pytest.mark.parametrize("old", [False, True])
def test_a_cut_file_is_refused_wherever_it_is_cut(refusal, old):
    raw = saved(ROOT, arrays(), old=old)
    for length in [*range(0, len(raw), max(1, len(raw) // 60)), len(raw) - 1]:
        refusal(raw[:length])


def test_one_flipped_byte_of_an_archives_storage_is_seen(refusal):
    tensors = arrays()
    raw = bytearray(saved(ROOT, tensors, old=False))
    raw[raw.index(tensors["w"].tobytes())] ^= 1
    assert "CRC" in refusal(bytes(raw))


@pytest.mark.parametrize("raw", [b"", b"a plain text\n", b"\x80\x02.", b"PK\x03\x04", b"{}", bytes(100)])
def test_files_of_another_kind(refusal, raw):
    refusal(raw)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("root", [3, {}, [], "text", {"w": tensor(storage("0", 4), (4,))}, name(ROOT)])
def test_pickles_that_hold_no_module(refusal, write, root):
    refusal(write(root, {"0": bytes(16)} if isinstance(root, dict) and root else {}))


def test_modules_that_are_none(refusal):
    assert "without _parameters" in refusal(zipped(instance(name(ROOT), {}), {}))
    assert "among the _modules" in refusal(zipped(module(name(ROOT), {}, {"part": 3}), {}))
    assert "among the _parameters" in refusal(zipped(module(name(ROOT), {"w": module(name(PART))}), {}))
    numbered = module(name(ROOT), {3: tensor(storage("0", 1), (1,))})
    assert "a key that is no string" in refusal(zipped(numbered, {"0": bytes(4)}))


def test_modules_inside_themselves_or_endlessly_deep(refusal):
    # Opcodes: an instance kept at place 0, then its state, in which it is its own part.
    state = {"_parameters": {}, "_buffers": {}, "_modules": {"self": Op(b"h\x00")}}
    assert "inside itself, or twice" in refusal(zipped(Op(name(ROOT) + b")\x81q\x00" + dump(state) + b"b"), {}))
    shared = Op(module(name(PART)) + b"q\x00")
    twice = module(name(ROOT), {}, {"one": shared, "two": Op(b"h\x00")})
    assert "inside itself, or twice" in refusal(zipped(twice, {}))
    deep = module(name(PART))
    for _ in range(3000):
        deep = module(name(PART), {}, {"x": deep})
    assert "too deep" in refusal(zipped(deep, {}))


def test_an_archive_without_its_pickle_and_of_another_machine(refusal):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/version", "3")
    assert "no data.pkl" in refusal(file.getvalue())
    assert "big-endian" in refusal(zipped(module(name(ROOT)), {}, byteorder=b"big"))


def test_a_stream_of_another_machine(refusal):
    raw = streamed(module(name(ROOT)), {})
    said = refusal(raw.replace(b"little_endian\x88", b"little_endian\x89"))
    assert "big-endian" in said


def test_a_stream_that_goes_on_or_lists_other_storages(refusal):
    array = np.zeros(4, np.float32)
    root, raw = module(name(ROOT), {"w": tensor(storage("0", 4), (4,))}), {"0": array.tobytes()}
    assert "goes on" in refusal(streamed(root, raw) + b"x")
    for keys in ([], ["0", "0"], ["1"], [0], {"0": 0}):
        assert "list the storages" in refusal(streamed(root, raw, keys=keys))


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_no_file(tmp_path, kind):
    path = tmp_path if kind == "folder" else tmp_path / "none.pkl"
    with pytest.raises(UserError, match="cannot be read"):
        read_module(path, CLASSES)
