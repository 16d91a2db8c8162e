"""Targets of `fuzz.py`: texts and their tokenizers, what runs write, the command line, requests of the page."""

import hashlib
import io
import json
import struct
from argparse import Namespace
from contextlib import suppress

import numpy as np
from fuzz_target import dumped, target, written
from PIL import Image

TEXTS = ["a red seven", "two blue ones", "é\u0301 \u200d 👩‍👧 \ufffd", ""]


def vocabulary_seeds():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from t2i_jax.data import vocabularies

    own = vocabularies.build_word_pieces(TEXTS, 64)
    vocab = {"a": 0, "b": 1, "ab": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}
    clip = Tokenizer(models.BPE(vocab, [("a", "b")], unk_token="<|endoftext|>"))
    clip.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    clip.post_processor = processors.RobertaProcessing(("<|endoftext|>", 4), ("<|startoftext|>", 3))
    return [own.to_str().encode(), clip.to_str().encode()]


def encoded(reader, size):
    ids, mask, _ = reader.encode(TEXTS)
    assert ids.shape == mask.shape == (len(TEXTS), 12)
    assert 0 <= ids.min() <= ids.max() < size, "an id without a row in the embedding"


@target("tokenizer.json", "data.vocabularies", vocabulary_seeds, json=True)
def _(content, folder):
    from t2i_jax import files
    from t2i_jax.data import clip_text, text, vocabularies
    from t2i_jax.errors import UserError

    path, size = written(folder, "tokenizer.json", content), 5
    with suppress(Exception):
        size = len(json.loads(content)["model"]["vocab"])
    try:
        encoded(clip_text.TextReader(path, size, 12, None), size)
    except UserError:
        tokenizer = vocabularies.read_vocabulary(path, size)
        encoded(text.TextTokenizer(tokenizer, 12, unknown="[UNK]"), size)
    with suppress(ValueError, TypeError, RecursionError):
        files.write_json(path, json.loads(content))
    reader = text.CaptionReader(path, 12)
    reader.encode_prompts(["a red seven"])
    repr(reader)


def lines_seeds():
    return [
        b"{}\0[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nred\n##s\n",
        b'{"do_lower_case": false}\0[PAD]\n[UNK]\n[CLS]\n[SEP]\nA',
    ]


@target("vocab.txt", "data.vocabularies", lines_seeds)
def _(content, folder):
    from t2i_jax.data import text, vocabularies

    settings, _, lines = content.partition(b"\0")
    if settings:
        written(folder, vocabularies.SETTINGS, settings)
    size = lines.removesuffix(b"\n").count(b"\n") + 1
    tokenizer = vocabularies.read_vocabulary(written(folder, "vocab.txt", lines), size)
    encoded(text.TextTokenizer(tokenizer, 12, unknown="[UNK]"), size)


@target("prompts", "cli.sample", lambda: ["a red seven\ntwo blue ones é\r\n".encode(), b"\xef\xbb\xbfa\n"])
def _(content, folder):
    from t2i_jax.cli.sample import read_prompts
    from t2i_jax.data import text, vocabularies

    prompts = read_prompts(written(folder, "prompts.txt", content))
    reader = text.TextTokenizer(vocabularies.build_word_pieces(TEXTS, 64), 12, unknown="[UNK]")
    assert all(prompt.strip() for prompt in prompts)
    reader.encode_prompts(prompts)


# --- runs, and what they write


EMPTY = hashlib.sha256().hexdigest()


@target("sealed json", "files", lambda: dumped({"a": 1, "files": {"b": EMPTY}, "sha256": "x"}), json=True)
def _(content, folder):
    from t2i_jax import files

    written(folder, "b", b"")
    path = written(folder, files.MANIFEST, content)
    with suppress(Exception):
        files.write_json(path, {name: x for name, x in json.loads(content).items() if name != "sha256"})
    files.verify_manifest(folder)


def run_seeds():
    from t2i_jax.config import load_config

    found = []
    for name in ("vqvae:smoke", "translator:smoke"):
        found.append(load_config(name).to_json().encode())
    return found


@target("config of a run", "runs", run_seeds, json=True)
def _(content, folder):
    from t2i_jax import files, models, runs

    path = written(folder, "config.json", content)
    with suppress(Exception):
        files.write_json(path, json.loads(content))
    config = runs.read_config(folder)
    runs.parents(config, folder)
    models.build(config)


NOTE = {"prompt": "a red seven", "index": 1, "digest": "c0ffee", "seed": 5, "candidates": None, "rerank": None}


def note_seeds():
    from t2i_jax import pictures

    settings = {"clip": None, "temperature": 0.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "guidance_scale": 1.5}
    grid = {**NOTE, **settings, "prompts": ["a", "b"], "n": 2, "prompt": "a, b"}
    del grid["index"]
    return [*dumped(NOTE | settings, grid), pictures.to_png(Image.new("RGB", (4, 4)), NOTE | settings)]


@target("note of a png", "cli.like", note_seeds, json=True)
def _(content, folder):
    from PIL import PngImagePlugin

    from t2i_jax import sampling
    from t2i_jax.cli import like

    if not content.startswith(b"\x89"):
        info, opened = PngImagePlugin.PngInfo(), io.BytesIO()
        info.add_text("t2i", content.decode("latin-1"), zip=True)
        Image.new("RGB", (4, 4)).save(opened, "PNG", pnginfo=info)
        content = opened.getvalue()
    args = Namespace(**like.OWN, **dict.fromkeys(sampling.settings()), out=None, overwrite=False, index=None)
    args.like = str(written(folder, "a.png", content))
    like.fill(args)
    assert type(args.num) is type(args.seed) is int
    assert args.prompt is None or all(prompt.isprintable() for prompt in args.prompt)


@target("statistics", "evals.metrics.moments", lambda: moments_seeds())
def _(content, folder):
    from t2i_jax.evals.metrics import moments

    found, about = moments.load(written(folder, "a.npz", content))
    assert found.products.shape == (len(found.total),) * 2
    assert isinstance(about, str)


def moments_seeds():
    found = []
    for own in ({}, {"n": 4, "total": np.ones(2), "products": np.eye(2), "about": "vgg16"}):
        content = io.BytesIO()
        np.savez(content, mu=np.zeros(2), sigma=np.eye(2), **own)
        found.append(content.getvalue())
    content = io.BytesIO()
    np.save(content, np.zeros(2))
    return [*found, content.getvalue()]


def event_seeds():
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary

    value = Summary(value=[Summary.Value(tag="train/loss", simple_value=0.5)])
    events = Event(step=3, summary=value), Event(step=2, session_log=SessionLog(status=SessionLog.START))
    return [b"".join(struct.pack("<Q", len(raw)) + raw for raw in (event.SerializeToString() for event in events))]


@target("event files", "loop.events", event_seeds)
def _(content, folder):
    from tensorboardX.record_writer import masked_crc32c

    from t2i_jax.loop import events

    (folder / "logs").mkdir()
    records, left = b"", content
    while len(left) > 8:  # the checksums that the lengths and contents need
        head, length = left[:8], min(struct.unpack("<Q", left[:8])[0], 2**20)
        raw, left = left[8 : 8 + length], left[8 + length :]
        records += head + struct.pack("<I", masked_crc32c(head)) + raw + struct.pack("<I", masked_crc32c(raw))
    written(folder / "logs", "events.out.tfevents.1", records + left)
    events.read_scalars(folder)


# --- the command line and the page

OVERRIDES = ["steps=3", "optim.lr=1e-3", "data.image_size=48,64", "model.width=8", "name=x", "mesh.data=-1"]


@target("overrides", "config.load", lambda: [f"--config.{each}".encode() for each in OVERRIDES])
def _(content, folder):
    from t2i_jax.config import load_config

    options = content.decode("utf-8", "surrogateescape").split("\0")[:3]
    if not any("init_from" in option or "_weights" in option or ".run" in option for option in options):
        load_config("vqvae:smoke", options)  # other fields name files that the user has


@target("image sizes", "ranges", lambda: dumped({"image_size": 64}, {"image_size": [48, 64]}), json=True)
def _(content, folder):
    from t2i_jax import ranges
    from t2i_jax.convert.weights import read_object

    said = read_object(written(folder, "a.json", content))
    ranges.check_config({name: value for name, value in said.items() if value is not None})
    height, width = ranges.sides(ranges.as_image_size(said.get("image_size")))
    assert 1 <= min(height, width) <= max(height, width) < 2**31


@target(
    "requests of the page", "page.answers", lambda: dumped({"data": ["a red seven", 3, 2, *[None] * 7]}), json=True
)
def _(content, folder):
    from fakes import FakeTranslator

    from t2i_jax.errors import UserError
    from t2i_jax.page import answers, gate

    said = json.loads(content).get("data") if gate._is_plain(content) else None
    if isinstance(said, list):  # gradio refuses others
        page = answers.Answers({"a": FakeTranslator()}, max_images=8, time_limit=60.0)
        with suppress(UserError):
            answers._bytes(said[0] if said else None)
        prompt, seed, number, *values = [*said, 0, 0, 0]
        page._checked("a", prompt, seed, number, values[:-3])
