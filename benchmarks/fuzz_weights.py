"""Targets of `fuzz.py`: released weights, their configs and names, and the weights of a run."""

import io
import json
import pickle
import struct
import zipfile
from contextlib import suppress

import numpy as np
from fuzz_target import dumped, target, written


def safetensors_seeds():
    import safetensors.numpy

    tensors = {"params/a": np.arange(6, dtype=np.float32).reshape(2, 3), "variables/b": np.zeros(3, np.int8)}
    return [safetensors.numpy.save(tensors, {"t2i": '{"step": 3, "sha256": ""}'}), safetensors.numpy.save({})]


@target("safetensors", "convert.hub", safetensors_seeds)
def _(content, folder):
    from t2i_jax.convert import hub

    tensors = hub.read(written(folder, "a.safetensors", content))
    assert sum(x.nbytes for x in tensors.values()) == len(content) - 8 - struct.unpack("<Q", content[:8])[0]


@target("weights of a run", "runs", safetensors_seeds)
def _(content, folder):
    import safetensors.numpy

    from t2i_jax import runs

    with suppress(Exception):
        tensors = safetensors.numpy.load(content)
        note = json.dumps({"step": 3, "sha256": runs.digest_of(tensors, "step 3")})
        content = safetensors.numpy.save(tensors, {"t2i": note})
    params, variables, _, _ = runs.load_weights(written(folder, "model.safetensors", content))
    assert isinstance(params, dict)
    assert isinstance(variables, dict)


def index_seeds():
    return dumped({"metadata": {"total_size": 24}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})


@target("index of weights", "convert.weights", index_seeds, json=True)
def _(content, folder):
    import safetensors.numpy

    from t2i_jax.convert import weights

    for number, name in enumerate("ab", 1):
        written(folder, f"{number}.safetensors", safetensors.numpy.save({name: np.zeros(3, np.float32)}))
    path = written(folder, "model.safetensors.index.json", content)
    weights.find(folder)
    assert weights.read(path).keys() <= {"a", "b"}


def msgpack_seeds():
    from flax import serialization

    return [serialization.to_bytes({"params": {"a": {"kernel": np.ones((2, 3), np.float32)}}, "b": np.arange(3)})]


@target("flax msgpack", "convert.weights", msgpack_seeds)
def _(content, folder):
    from t2i_jax.convert import weights

    weights.read(written(folder, "flax_model.msgpack", content))


CLASSES = {"torch.nn.modules.container.Sequential", "dall_e.encoder.Encoder"}


def torch_modules(old: bool) -> list[bytes]:
    from torch_files import name, saved, storage, streamed, tensor, zipped

    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(3, 2)).astype("f4"), "a.b.w": rng.normal(size=(2, 3, 1, 1)).astype("f4")}
    state = {"w": tensor(storage("0", 4), (2, 2)), "b": tensor(storage("1", 4), (2, 2), strides=(1, 2))}
    raw, write = {"0": bytes(16), "1": bytes(16)}, streamed if old else zipped
    checkpoint = {"state_dict": state, "epoch": 3, "callbacks": {name("pytorch_lightning.callbacks.Best"): None}}
    return [saved("dall_e.encoder.Encoder", arrays, old=old), write(state, raw), write(checkpoint, raw)]


def read_torch(content, folder):
    from t2i_jax.convert import pickles
    from t2i_jax.errors import UserError

    path, refused = written(folder, "a.bin", content), []
    for read in (pickles.read_state, pickles.read_checkpoint, lambda path: pickles.read_module(path, CLASSES)[1]):
        try:
            arrays = read(path)
            assert sum(array.nbytes for array in arrays.values()) <= len(content) * len(arrays)
            assert all(type(name) is str for name in arrays)
        except UserError as error:
            refused.append(error)
    if len(refused) == 3:
        raise refused[0]


target("torch stream", "convert.pickles", lambda: torch_modules(True))(read_torch)
target("torch archive", "convert.pickles", lambda: torch_modules(False))(read_torch)


def pickles_inside():
    return [zipfile.ZipFile(io.BytesIO(raw)).read("archive/data.pkl") for raw in torch_modules(False)]


@target("torch pickle", "convert.pickles", pickles_inside)
def _(content, folder):
    from torch_files import zipped

    read_torch(zipped(content, {"0": bytes(16), "1": bytes(16)}), folder)


def lpips_seeds():
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    return [pickle.dumps({"VGG16_0": {"Conv_0": {"kernel": array, "bias": array[0, 0, :, 0]}}}, protocol=3)]


@target("lpips", "convert.lpips", lpips_seeds)
def _(content, folder):
    from t2i_jax.convert import lpips

    path = written(folder, "vgg16.ckpt", content)
    arrays = lpips.read(path)
    assert all(array.dtype == np.float32 for array in arrays.values())
    lpips.convert(arrays, str(path))


def release_seeds():
    from clips import CONFIG
    from released import BERT_JSON, GPT2_JSON

    pair = {"model_type": "encoder-decoder", "encoder": BERT_JSON, "decoder": GPT2_JSON | {"n_layer": 3}}
    return dumped(pair, CONFIG, BERT_JSON, GPT2_JSON)


@target("config of a release", "convert.tables", release_seeds, json=True)
def _(content, folder):
    from clips import tensors as clip_tensors
    from released import bert_tensors, gpt2_tensors

    from t2i_jax.convert import bert, clip, encoder_decoder, gpt2, weights

    said = weights.read_object(written(folder, "config.json", content))
    match said.get("model_type"):
        case "bert":
            bert.read_sizes(said, "it")
        case "gpt2":
            gpt2.read_sizes(said, "it")
        case "clip":
            clip.convert(clip_tensors(), clip.fields_of(said, "it"), "it")
        case _:
            config = encoder_decoder.config_of(said, "it")
            encoder_decoder.check_start(said, "it", config.model.codebook_size)
            own = {f"encoder.{name}": x for name, x in bert_tensors().items()}
            own |= {f"decoder.transformer.{name}": x for name, x in gpt2_tensors().items()}
            encoder_decoder.convert(own, config.model, "it")


def names_seeds():
    vqgan = {f"encoder.down.{i}.block.0.conv1.weight": [4, 4, 3, 3] for i in range(2)}
    vqgan |= {"encoder.conv_in.weight": [4, 3, 3, 3], "encoder.conv_out.weight": [4, 4, 3, 3]}
    vqgan |= {"quantize.embedding.weight": [8, 4], "quant_conv.weight": [4, 4, 1, 1], "quantize.proj.weight": [8]}
    dvae = {"encoder.blocks.input.w": [4, 3, 7, 7], "decoder.blocks.input.w": [4, 8, 1, 1]}
    inception = {"Mixed_7c.branch1x1.conv.weight": [320, 1, 1, 1], "fc.weight": [8, 2]}
    lpips = {"VGG16_0.Conv_0.kernel": [3, 3, 3, 64], "NetLinLayer_0.Conv_0.kernel": [1, 1, 64, 1]}
    bert = {"encoder.layer.0.intermediate.dense.weight": [4, 2], "embeddings.word_embeddings.weight": [4, 2]}
    return dumped(vqgan, dvae | {"encoder.blocks.group_1.block_1.res_path.conv_1.w": [1]}, inception, lpips, bert)


@target("names of tensors", "convert.tables", names_seeds, json=True)
def _(content, folder):
    from t2i_jax.convert import bert, inception, lpips, openai_dvae, tables, vqgan, weights
    from t2i_jax.errors import UserError

    said, tensors = weights.read_object(written(folder, "names.json", content)), {}
    for name, shape in said.items():
        whole = isinstance(shape, list) and all(type(side) is int and 0 <= side < 2**40 for side in shape)
        if whole and len(shape) <= 8 and np.prod(shape, dtype=float) < 10**5:
            tensors[name] = np.zeros(shape, np.float32)
    calls = (
        lambda: vqgan.convert(tensors, {"code/codes": (8, 4)}, "it") and vqgan.sizes_of(tensors, "it"),
        lambda: vqgan.sizes_of(tensors, "it"),
        lambda: openai_dvae.sizes_of(tensors),
        lambda: inception.convert(tensors, "it"),
        lambda: lpips.convert(tensors, "it"),
        lambda: tables.layers_in(bert.renamed(tensors), bert.INSIDE),
    )
    for call in calls:
        try:
            sizes = call()
        except UserError:
            continue
        numbers = [n for n in sizes.values() if type(n) is int] if isinstance(sizes, dict) else [sizes]
        assert all(number < 10**6 for number in numbers), numbers
