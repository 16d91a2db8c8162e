"""Every file, every kind of damage, and the command that a user would give next.

Either the run recovers, names the file in a warning and ends as if nothing had been, or it is refused in one line
that names the file. The short form tries each file once and each kind of damage; `--long` tries them all.
"""

import shutil

import pytest
import worlds
from damage import DAMAGE

from t2i_jax import cli
from t2i_jax.errors import UserError
from t2i_jax.evals import report

FRESH = [*worlds.TOKENIZER, "--workdir=fresh"]
TOKENS, DATA = "tokenizer/tokens/captioned_digits-tiny", "data/captioned_digits/tiny/1.3.0"
CASES = [  # state, command, file, what becomes of it when damaged, and when missing
    ("interrupted", worlds.TRANSLATOR, "translator/config.json", "refused", "refused"),
    ("interrupted", worlds.TRANSLATOR, "translator/checkpoints/4/state/manifest.ocdbt", "survived", "survived"),
    ("interrupted", worlds.TRANSLATOR, "translator/parents/tokenizer/model.safetensors", "survived", "survived"),
    ("interrupted", worlds.TRANSLATOR, "tokenizer/config.json", "refused", "refused"),
    ("interrupted", worlds.TRANSLATOR, f"{TOKENS}/train/00000.array_record", "refused", "refused"),
    ("interrupted", worlds.TRANSLATOR, f"{TOKENS}/train/digests.json", "refused", "refused"),
    ("interrupted", worlds.TRANSLATOR, f"{TOKENS}/validation/00000.array_record", "refused", "refused"),
    ("interrupted", worlds.TRANSLATOR, f"{TOKENS}/validation/digests.json", "refused", "refused"),
    ("interrupted", FRESH, f"{DATA}/captioned_digits-train.array_record-00000-of-00001", "refused", "refused"),
    ("interrupted", FRESH, f"{DATA}/captioned_digits-validation.array_record-00000-of-00001", "refused", "refused"),
    (
        "interrupted",
        FRESH,
        f"{DATA}/captioned_digits-compositions.array_record-00000-of-00001",
        "refused",
        "refused",
    ),
    ("interrupted", FRESH, f"{DATA}/dataset_info.json", "refused", "refused"),
    ("interrupted", FRESH, f"{DATA}/features.json", "refused", "refused"),
    ("interrupted", FRESH, f"{DATA}/digests.json", "refused", "survived"),
    ("untouched", worlds.TRANSLATOR, "translator/model.safetensors", "survived", "survived"),
    ("untouched", worlds.TRANSLATOR, "translator/text_tokenizer.json", "refused", "survived"),
    ("untouched", worlds.TRANSLATOR, "translator/parents/tokenizer/config.json", "survived", "survived"),
    ("untouched", worlds.TOKENIZER, "tokenizer/model.safetensors", "survived", "survived"),
    ("untouched", "sample", "translator/text_tokenizer.json", "refused", "refused"),
    ("untouched", "sample", "translator/model.safetensors", "survived", "survived"),
    ("untouched", "sample", "translator/parents/tokenizer/config.json", "refused", "refused"),
    # The long form alone, because the short one has these files already or trains too long for them.
    ("interrupted", worlds.TRANSLATOR, "tokenizer/scores.json", "survived", "survived"),
    ("interrupted", worlds.TRANSLATOR, f"{TOKENS}/baselines.json", "survived", "unread"),
    ("interrupted", worlds.TRANSLATOR, "translator/checkpoints/4/digests.json", "survived", "survived"),
    ("interrupted", worlds.TRANSLATOR, "translator/checkpoints/4/data/process_0-of-1.json", "survived", "survived"),
    ("interrupted", worlds.TRANSLATOR, "translator/model.safetensors", "survived", "survived"),
    ("interrupted", worlds.TRANSLATOR, "translator/text_tokenizer.json", "refused", "survived"),
    ("interrupted", worlds.TRANSLATOR, "translator/parents/tokenizer/config.json", "survived", "survived"),
    ("interrupted", worlds.TRANSLATOR, "translator/parents/tokenizer/scores.json", "unread", "unread"),
    ("interrupted", worlds.TRANSLATOR, "tokenizer/model.safetensors", "survived", "survived"),
    ("untouched", worlds.TRANSLATOR, "translator/config.json", "refused", "refused"),
    ("untouched", worlds.TRANSLATOR, "translator/parents/tokenizer/model.safetensors", "survived", "survived"),
    ("untouched", worlds.TOKENIZER, "tokenizer/config.json", "refused", "refused"),
    ("untouched", "sample", "translator/config.json", "refused", "refused"),
    ("untouched", "sample", "translator/parents/tokenizer/model.safetensors", "refused", "refused"),
]
SHORT = 21  # of the cases above, each with one kind of damage, in turn
PARAMETERS = [
    pytest.param(
        state,
        argv,
        name,
        fault,
        missing if fault == "missing" else damaged,
        id=f"{state}-{argv if argv == 'sample' else 'train'}-{name.replace('/', '-')}-{fault}",
        marks=[] if number < SHORT and kind == (number + 1) % 4 else pytest.mark.long,
    )
    for number, (state, argv, name, damaged, missing) in enumerate(CASES)
    for kind, fault in enumerate(DAMAGE)
]


@pytest.fixture
def sample(capsys, monkeypatch):
    """`t2i sample`'s code, lines on stderr, and the picture."""

    def call(world):
        monkeypatch.chdir(world)
        capsys.readouterr()
        code = cli.main(
            ["sample", "--run", "translator", "--prompt", "a red seven", "-n", "1", "--out", "grid.png"]
        )
        return code, capsys.readouterr().err.splitlines()

    return call


@pytest.fixture
def drawn(untouched, once, sample, tmp_path):
    """The world that `sample` has drawn from, undamaged."""

    def draw(folder):
        shutil.copytree(untouched, folder)
        code, said = sample(folder)
        assert code == 0
        assert [line.partition(" after ")[0] for line in said] == ["pictures"]

    return once("drawn", draw)


@pytest.mark.parametrize(("state", "argv", "name", "fault", "outcome"), PARAMETERS)
def test_a_damaged_file_is_named_and_nothing_is_lost(
    state, argv, name, fault, outcome, untouched, request, command, sample, tmp_path, read_only, record_fault
):
    record_fault(f"{name}: {fault}", "tried")
    world = shutil.copytree(untouched.parent / state, tmp_path / "world")
    DAMAGE[fault](world / name)
    before = read_only(world)
    code, said = sample(world) if argv == "sample" else command(*argv, cwd=world)
    assert not any("Traceback" in line for line in said)
    if outcome == "refused":
        assert code == 2, said
        assert name in said[-1]
        assert said[-1].startswith(("train.py: ", "t2i: "))
        kept = {path: content for path, content in read_only(world).items() if "fresh" not in str(path)}
        assert kept == before
        record_fault(f"{name}: {fault}", "refused")
        return
    assert code == 0, said
    named = [line for line in said if line.startswith("warning: ") and name in line]
    assert bool(named) == (outcome == "survived"), said
    if "/checkpoints/" in name:
        assert "checkpoint 4" in named[0]
        assert "warning: using the checkpoint of step 2 instead" in said
    if argv == "sample":
        drawn = request.getfixturevalue("drawn")
        assert (world / "grid.png").read_bytes() == (drawn / "grid.png").read_bytes()
    else:
        run = world / next(part for part in argv if part.startswith("--workdir="))[10:]
        run = world / "fresh" if argv == FRESH else run
        if name.startswith("translator/parents/tokenizer/scores"):
            shutil.copy(untouched / name, world / name)  # no one reads it here
        worlds.assert_same_run(run, untouched / ("translator" if run.name == "translator" else "tokenizer"))
    record_fault(f"{name}: {fault}", "survived")


@pytest.mark.parametrize("fault", ["truncated", "emptied", "flipped"])
def test_damaged_scores_are_named_by_the_evaluation(fault, untouched, tmp_path, record_fault):
    for name in ("translator/scores.json", "translator/parents/tokenizer/scores.json"):
        record_fault(f"{name}: {fault}", "tried")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(untouched / name, tmp_path / name)
        DAMAGE[fault](tmp_path / name)
        with pytest.raises(UserError, match=r"scores.json is corrupt .*; delete it to go on without it"):
            report.read_scores((tmp_path / name).parent, ())
        record_fault(f"{name}: {fault}", "refused")
