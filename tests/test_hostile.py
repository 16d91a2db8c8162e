"""Files and texts of strangers, generated: what comes out is right, or it is refused in one line."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from t2i_jax import cli, files
from t2i_jax.cli.sample import read_prompts
from t2i_jax.data import entry, images, text, vocabularies
from t2i_jax.errors import UserError

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies
ANY_TEXT = st.text(st.characters(), max_size=60) | st.sampled_from(
    ["\x00", "\ud800", "\u202eabc", "a" * 5000, "\u200d" * 50, "👩‍👩‍👧", "x\r\ny", "[UNK] [PAD]", "A\u0301" * 20]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
PICTURES = [
    (format_, mode)
    for format_ in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF")
    for mode in ("RGB", "RGBA", "L", "P", "1", "I;16", "CMYK")
]


@pytest.fixture(scope="module")
def encoded():
    """A picture of 12 x 10 pixels in each format and mode that Pillow writes here."""
    rng, found = np.random.default_rng(0), {}
    picture = Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8))
    for format_, mode in PICTURES:
        content = io.BytesIO()
        try:
            own = Image.new(mode, picture.size, 1000) if mode == "I;16" else picture.convert(mode)
            own.save(content, format_, **({"sizes": [own.size]} if format_ == "ICO" else {}))
        except (OSError, KeyError, ValueError):  # no such encoder, or not in this mode
            continue
        found[format_, mode] = content.getvalue()
    assert len(found) > 25
    return found


def test_pictures_that_are_whole_come_out_upright_and_in_colour(encoded, record_fault):
    for (format_, mode), content in encoded.items():
        record_fault("whole pictures", "tried")
        decoded = images.decode(content)
        assert decoded.mode == "RGB", (format_, mode)
        assert decoded.size == (12, 10)
        record_fault("whole pictures", "survived")


SHARES = st.floats(0, 1)


@given(data=st.data(), cut=SHARES, changes=st.lists(st.tuples(SHARES, st.integers(0, 255)), max_size=4))
def test_pictures_that_are_cut_or_changed(encoded, record_fault, data, cut, changes):
    content = bytearray(encoded[data.draw(st.sampled_from(sorted(encoded)))])
    for place, byte in changes:
        content[int(place * (len(content) - 1))] = byte
    if data.draw(st.booleans()):
        content = content[: int(cut * len(content))]
    record_fault("damaged pictures", "tried")
    try:
        decoded = images.decode(bytes(content))
    except images.Unreadable as error:
        assert len(str(error)) < 100  # noqa: PT017, both ends are good
        record_fault("damaged pictures", "refused")
    else:
        assert decoded.mode == "RGB"
        assert min(decoded.size) >= images.MIN_SIDE
        record_fault("damaged pictures", "survived")


@given(captions=JSON)
def test_captions_of_any_kind(record_fault, captions):
    record_fault("captions", "tried")
    cleaned = entry.clean(captions)
    assert len(cleaned) == len(set(cleaned))
    for caption in cleaned:
        assert caption.strip() == caption != ""
        assert "\n" not in caption
        caption.encode()
    record_fault("captions", "survived" if cleaned else "refused")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "text_tokenizer.json"
    vocabularies.write_word_pieces(path, vocabularies.build_word_pieces(["a red seven", "two blue ones"], 64))
    return text.CaptionReader(path, 12)


@given(prompt=ANY_TEXT)
def test_prompts_of_any_kind(reader, record_fault, prompt):
    record_fault("prompts", "tried")
    try:
        ids, mask, unknown = reader.encode_prompts(["a red seven", prompt])
    except UserError as error:
        assert len(str(error)) < 10_000  # noqa: PT017, both ends are good
        assert "\n" not in str(error)  # noqa: PT017
        record_fault("prompts", "refused")
    else:
        assert ids.shape == (2, 12)
        assert mask[1].sum() > 2
        assert all(isinstance(word, str) for word in unknown)
        record_fault("prompts", "survived")


@given(content=st.binary(max_size=80) | ANY_TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_prompt_files_of_any_kind(tmp_path, record_fault, content):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    record_fault("files of prompts", "tried")
    try:
        prompts = read_prompts(path)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017, both ends are good
        record_fault("files of prompts", "refused")
    else:
        assert all(prompt.strip() for prompt in prompts)
        assert "".join(prompts) == content.decode("utf-8-sig").replace("\r", "").replace("\n", "")
        record_fault("files of prompts", "survived")


@given(content=st.dictionaries(st.text(max_size=5), JSON, max_size=4), place=SHARES, byte=st.integers(1, 255))
def test_a_runs_json_with_one_byte_changed(tmp_path, record_fault, content, place, byte):
    path = tmp_path / "config.json"
    hypothesis.assume("sha256" not in content)
    try:
        files.write_json(path, content)
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8: nothing was written
        return
    before, whole = files.read_json(path), bytearray(path.read_bytes())
    whole[int(place * (len(whole) - 1))] ^= byte
    path.write_bytes(whole)
    record_fault("changed JSON of a run", "tried")
    try:
        assert json.dumps(files.read_json(path)) == json.dumps(before)  # NaN is not itself
    except files.CorruptError as error:
        assert "\n" not in str(error)  # noqa: PT017, both ends are good
        record_fault("changed JSON of a run", "refused")
    else:
        record_fault("changed JSON of a run", "survived")


@pytest.mark.long
@given(data=st.data(), value=st.text(max_size=20) | st.floats().map(str) | st.integers().map(str))
def test_overrides_of_any_kind(capsys, record_fault, tmp_path, data, value):
    fields = ["steps", "optim.lr", "data.image_size", "data.train", "model.width", "model.grid", "shown_captions"]
    fields += ["mesh", "sharding_rules", "optim.lr_multipliers", "model", "sampling.temperature", "name", "x", ""]
    override = f"--config.{data.draw(st.sampled_from(fields))}={value}"
    record_fault("overrides of a config", "tried")
    code = cli.main(["train", "--config=vqvae:smoke", f"--workdir={tmp_path}", "--profile=0:0", override])
    said = capsys.readouterr().err
    assert code == 2  # at the latest by --profile, which is read after the config
    assert said.count("\n") == 1
    record_fault("overrides of a config", "survived" if "--profile" in said else "refused")
