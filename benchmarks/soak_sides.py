"""The two that `soak.py` keeps going: how each is started, what files it has, and whether its end is right."""

import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

from soak_programs import REPO, Side

PROGRAM = [sys.executable, str(REPO / "train.py")]
T2I = [sys.executable, "-c", "import sys; from t2i_jax.cli import main; sys.exit(main())"]
STEPS = 2400
FIELDS = {
    "steps": STEPS,
    "checkpoint_every": 100,
    "log_every": 100,
    "eval_every": STEPS // 2,
    "ema": 0.9,
    "data.data_dir": "data",
    "data.code_noise": 0.3,  # every random stream draws
    "model.encoder.dropout": 0.1,
    "model.decoder.dropout": 0.1,
    "parents.tokenizer.run": "tokenizer",
    "parents.tokenizer.config.steps": 12,
    "parents.tokenizer.config.checkpoint_every": 2,
    "parents.tokenizer.config.eval_every": 12,
}
PROMPTS = ["a red seven", "a green five", "two red sevens", "a blue eight above an orange six"]
PICTURES = 768  # of each prompt
COMPARED = ("config.json", "model.safetensors", "scores.json", "text_tokenizer.json")
NAMED = {
    "model.safetensors": "weights",
    "config.json": "config",
    "scores.json": "scores",
    "text_tokenizer.json": "text tokenizer",
}
UNREAD = ("lock", "events.", "plugins")


class Training(Side):
    kind = "training"
    STOPS = (signal.SIGINT, signal.SIGTERM)

    @staticmethod
    def options() -> list[str]:
        config = f"--config={REPO}/configs/translator.py:smoke"
        return [*PROGRAM, config, *(f"--config.{name}={value}" for name, value in FIELDS.items())]

    @classmethod
    def reference_jobs(cls):
        yield "finished", *cls.options(), "--workdir=finished"

    def command(self):
        return [*self.options(), f"--workdir={self.name}"]

    def folder(self) -> Path:
        return self.soak.disk / self.name

    def clear(self) -> None:
        """Every third run prepares data, trains its tokenizer and encodes by itself."""
        self.since = self.soak.now()
        for path in self.soak.disk.glob("training-*"):
            shutil.rmtree(path)
        for name in ("data", "tokenizer"):
            shutil.rmtree(self.soak.disk / name, ignore_errors=True)
            if self.number % 3:
                shutil.copytree(self.soak.folder / "reference" / name, self.soak.disk / name)

    def progress(self) -> int:
        """The newest step saved, of the tokenizer's too."""
        steps = [0]
        for run in (self.folder(), self.soak.disk / "tokenizer"):
            with suppress(OSError):
                found = [int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
                steps.append(max(found, default=0))
        return sum(steps)

    def reads(self):
        return self.name, "tokenizer", "data"

    def what(self, parts: tuple[str, ...]) -> str:
        """What a file is, "" where nobody reads it."""
        if "logs" in parts or "pictures" in parts:
            return ""
        if parts[0] == self.name:
            return next((x for x in ("checkpoint", "parents") if x in parts[1]), NAMED.get(parts[-1], ""))
        if parts[0] == "tokenizer":
            return "tokens" if "tokens" in parts else "" if "checkpoints" in parts else "tokenizer"
        return "data"

    def promises(self, path: Path, what: str) -> bool:
        """Whether a second copy is there."""
        if what == "checkpoint":
            return len(list((self.folder() / "checkpoints").glob("*[0-9]"))) > 1
        return what in ("weights", "parents", "scores")

    def differs(self) -> list[str]:
        reference, own = self.soak.folder / "reference", self.folder()
        names = [*COMPARED, *(f"parents/tokenizer/{name}" for name in COMPARED[:3])]
        wrong = [x for x in names if (own / x).read_bytes() != (reference / "finished" / x).read_bytes()]
        return wrong + [path.name for path in own.rglob("*") if path.name.endswith((".partial", ".old"))]


class Sampling(Side):
    kind = "sampling"

    @staticmethod
    def options(seed: int) -> list[str]:
        prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
        return [*T2I, "sample", "--run=finished", *prompts, "-n", str(PICTURES), f"--seed={seed}"]

    @classmethod
    def reference_jobs(cls):
        for seed in (0, 1):
            yield f"pictures-{seed}", *cls.options(seed), f"--out=pictures-{seed}/"

    def command(self):
        return [*self.options(self.number % 2), f"--out=pictures-{self.number % 2}/"]

    def folder(self) -> Path:
        return self.soak.disk / f"pictures-{self.number % 2}"

    def clear(self) -> None:
        self.since = self.soak.now()
        for name in ("pictures-0", "pictures-1", "finished"):
            shutil.rmtree(self.soak.disk / name, ignore_errors=True)
        shutil.copytree(self.soak.folder / "reference" / "finished", self.soak.disk / "finished")

    def progress(self) -> int:
        return len(list(self.folder().glob("*.png")))

    def reads(self):
        return self.folder().name, "finished"

    def what(self, parts: tuple[str, ...]) -> str:
        if parts[0] != "finished":
            return "a drawn picture" if parts[1].endswith(".png") else "prompts.jsonl"
        if {"checkpoints", "logs", "pictures", "scores.json"} & set(parts):
            return ""
        return f"the run's {'parents' if 'parents' in parts else NAMED.get(parts[-1], 'others')}"

    def promises(self, path: Path, what: str) -> bool:
        return what == "the run's weights"

    def differs(self) -> list[str]:
        reference = self.soak.folder / "reference" / self.folder().name
        paths = {path.name for folder in (reference, self.folder()) for path in folder.iterdir()}
        own = self.folder()
        same = {x for x in paths if (own / x).is_file() and (reference / x).is_file()}
        return sorted(x for x in paths if x not in same or (own / x).read_bytes() != (reference / x).read_bytes())


def flippable(disk: Path, side: Side) -> dict[str, list[Path]]:
    """Files that a bit may be flipped in, by what they are; the side's program does not run."""
    found = {}
    for folder in side.reads():
        for path in (disk / folder).rglob("*"):
            parts = path.relative_to(disk).parts
            passing = path.name.startswith(UNREAD) or any(x.endswith((".partial", ".old")) for x in parts)
            if passing or not path.is_file() or not path.stat().st_size or "/".join(parts) in side.flipped:
                continue
            if what := side.what(parts):
                found.setdefault(what, []).append(path)
    return found
