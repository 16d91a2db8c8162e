"""Whole pickled modules: what torch.save writes is read, anything else is refused in one line and never run."""

import os
import pickle

import numpy as np
import pytest
from torch_files import (
    Op,
    call,
    dump,
    instance,
    module,
    name,
    persistent,
    pickled,
    refusal_of,
    saved,
    storage,
    streamed,
    tensor,
    written,
    zipped,
)

from t2i_jax.convert.pickles import read_module

ROOT, PART = "dall_e.encoder.Encoder", "torch.nn.modules.container.Sequential"
CLASSES = {ROOT, PART}
FORMATS = {"zip": zipped, "stream": streamed}


def arrays(dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {"w": (3, 2), "blocks.input.w": (4, 3, 1, 1), "blocks.input.b": (4,), "blocks.out.0.deep": (1,)}
    return {dotted: rng.normal(size=shape).astype(dtype) for dotted, shape in shapes.items()}


@pytest.fixture
def read(tmp_path):
    """What a file of these bytes holds."""
    return lambda raw: read_module(written(tmp_path, raw), CLASSES)


@pytest.fixture
def refusal(tmp_path):
    """The one line with which a file of these bytes is refused."""
    return lambda raw: refusal_of(tmp_path, raw, CLASSES)


# --- what torch.save writes


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_tensors_come_back_under_their_names(read, old, dtype):
    tensors = arrays(dtype)
    of, found = read(saved(ROOT, tensors, old=old))
    assert of == ROOT
    assert found.keys() == tensors.keys()
    for key, array in tensors.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_tensors_may_share_a_storage(read, write):
    numbers = np.arange(10, dtype=np.float32)
    stored = storage("7", 10)
    parameters = {"whole": tensor(stored, (2, 5)), "part": tensor(stored, (1, 3), offset=4, strides=(99, 1))}
    found = read(write(module(name(ROOT), parameters), {"7": numbers.tobytes()}))[1]
    np.testing.assert_array_equal(found["whole"], numbers.reshape(2, 5))
    np.testing.assert_array_equal(found["part"], [[4, 5, 6]])


def test_the_source_of_a_class_comes_along_in_the_older_format_and_is_left_alone(read, tmp_path):
    of = persistent(("module", name(ROOT), "encoder.py", f"open({str(tmp_path / 'canary')!r}, 'w')"))
    numbers = np.ones(2, np.float32)
    root = module(of, {"w": tensor(storage("0", 2, view=[None]), (2,))})
    np.testing.assert_array_equal(read(streamed(root, {"0": numbers.tobytes()}))[1]["w"], numbers)
    assert not (tmp_path / "canary").exists()


def test_none_among_parameters_is_no_tensor(read):
    root = module(name(ROOT), {"w": None}, {"gone": None, "part": module(name(PART))})
    assert read(zipped(root, {})) == (ROOT, {})


# --- what must not run


def attacks(canary):
    """Pickles that touch the canary when they are loaded in the usual way."""
    touch = f"open({canary!r}, 'w').close()"
    system = call(name("os.system"), f"touch {canary}")
    protocol_4 = Op(dump("os") + dump("system") + b"\x93" + dump((f"touch {canary}",)) + b"R")
    dotted = Op(dump("builtins") + dump("open.__self__.exec") + b"\x93" + dump((touch,)) + b"R")
    getattr_ = call(name("__builtin__.getattr"), call(name("__builtin__.__import__"), "os"), "system")
    return {
        "os.system": system,
        "posix.system": call(name("posix.system"), f"touch {canary}"),
        "eval": call(name("__builtin__.eval"), touch),
        "exec": call(name("builtins.exec"), touch),
        "getattr chain": call(getattr_, f"touch {canary}"),
        "STACK_GLOBAL": protocol_4,
        "STACK_GLOBAL with dots": dotted,
        "INST": Op(b"(" + dump(f"touch {canary}") + b"ios\nsystem\n"),
        "OBJ": Op(b"(" + name("subprocess.Popen") + dump(["touch", canary]) + b"o"),
        "NEWOBJ_EX": Op(name("subprocess.Popen") + dump(()) + dump({"args": ["touch", canary]}) + b"\x92"),
        "partial": call(call(name("functools.partial"), name("os.system"), f"touch {canary}")),
        "subprocess": call(name("subprocess.getoutput"), f"touch {canary}"),
        "pickle in a pickle": call(
            name("pickle.loads"), Op(b"C" + bytes([len(pickled(system))]) + pickled(system))
        ),
        "runpy": call(name("code.InteractiveInterpreter.runcode"), touch),
        "BUILD": instance(name("types.SimpleNamespace"), {"x": system}),
        "module class": persistent(("module", name("os.system"), "", "")),
        "storage type": persistent(("storage", system, "0", "cpu", 1)),
        "persistent module": persistent(("module", system)),
    }


ATTACKS = list(attacks("canary"))


@pytest.mark.parametrize("place", ["alone", "in a state", "in a hook", "in a tensor"])
@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_code_is_refused_wherever_it_stands(refusal, tmp_path, attack, write, place):
    hostile = attacks(str(tmp_path / "canary"))[attack]
    root = {
        "alone": hostile,
        "in a state": module(name(ROOT), {}, {"part": module(name(PART), note=hostile)}),
        "in a hook": module(name(ROOT), _backward_hooks={"0": hostile}),
        "in a tensor": module(name(ROOT), {"w": tensor(hostile, (1,))}),
    }[place]
    refusal(write(root, {}))


@pytest.mark.parametrize(
    "attack", ["os.system", "eval", "exec", "getattr chain", "STACK_GLOBAL", "INST", "partial", "BUILD"]
)
def test_those_attacks_are_real(tmp_path, attack):
    """Python's own unpickler runs them: the tests above could fail."""
    pickle.loads(pickled(attacks(str(tmp_path / "canary"))[attack]))
    assert (tmp_path / "canary").exists()


def test_a_reduction_by_python_itself_is_refused(refusal, tmp_path):
    class Evil:
        def __reduce_ex__(self, protocol):
            return os.system, (f"touch {tmp_path / 'canary'}",)

    for protocol in range(6):
        said = refusal(zipped(pickle.dumps(Evil(), protocol), {}))
        assert "posix.system" in said or "opcode" in said
    refusal(pickle.dumps(Evil(), 2))


def test_code_in_the_older_formats_other_pickles_is_refused(refusal, tmp_path):
    hostile = call(name("os.system"), f"touch {tmp_path / 'canary'}")
    assert "os.system" in refusal(pickled(hostile))
    assert "os.system" in refusal(streamed(module(name(ROOT)), {}, keys=hostile))
    # A class that may occur in the module may not occur elsewhere.
    assert ROOT in refusal(streamed(module(name(ROOT)), {}, keys=[name(ROOT)]))


@pytest.mark.parametrize(
    "dotted",
    [
        "torch.serialization.os.system",
        "torch._utils.os",
        "dall_e.encoder.Encoder.__init__",
        "torch.load",
        "torch.Size",
    ],
)
def test_names_near_those_allowed_are_refused_by_name(refusal, dotted):
    assert repr(dotted) in refusal(zipped(call(name(dotted)), {}))
    top, _, rest = dotted.partition(".")
    assert repr(dotted) in refusal(zipped(Op(f"c{top}\n{rest}\n".encode()), {}))


def test_a_name_cannot_write_to_the_terminal(refusal):
    assert "\x1b" not in refusal(zipped(Op(b"cos\x1b[2J\nsystem\n"), {}))


def test_a_class_by_reference_is_a_modules_class(refusal):
    for other in ("torch.device", "collections.OrderedDict", "torch.FloatStorage"):
        said = refusal(streamed(module(persistent(("module", name(other), "", ""))), {}))
        assert "refers to something outside itself" in said


def test_the_extension_registry_is_refused(refusal):
    for opcode in (b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"):
        assert "EXT" in refusal(zipped(Op(opcode), {}))


def test_build_calls_no_setstate_of_its_own(refusal, read):
    """An instance that is handed a `__setstate__`, or a class that is to get one, calls nothing."""
    own = {"__setstate__": name("collections.OrderedDict"), "_parameters": {}, "_buffers": {}, "_modules": {}}
    twice = Op(instance(name(ROOT), own) + dump({"_parameters": {}}) + b"b")
    assert "without _buffers" in refusal(zipped(twice, {}))  # the second state, and no call
    for target in (name(ROOT), name("torch._utils._rebuild_tensor_v2"), name("torch.FloatStorage")):
        changed = Op(target + dump((None, {"__call__": 1, "__defaults__": (1,)})) + b"b")
        refusal(zipped(changed, {}))
        assert read(saved(ROOT, arrays(), old=False))[0] == ROOT  # whatever it did to them is gone with it
    assert "no dict" in refusal(zipped(instance(name(ROOT), (None, {"state": 1})), {}))


@pytest.mark.slow
@pytest.mark.parametrize("key", ["deep", "shared"])
def test_a_key_that_takes_for_ever_to_hash_is_refused(refusal, key):
    """Tuples in tuples: a million deep they would crash the process, each twice in the next take 2**40 steps."""
    makes = b")" + b"\x85" * 10**6 if key == "deep" else b")q\x00" + b"h\x00\x86q\x00" * 40
    assert "holds a dict with a key that is no string" in refusal(zipped(b"\x80\x02}" + makes + b"Ns.", {}))
    assert "holds a dict with a key that is no string" in refusal(zipped(b"\x80\x02}(" + makes + b"Nu.", {}))
