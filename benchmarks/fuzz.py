"""Coverage-guided fuzzing of the readers of strangers' files, by atheris (libFuzzer); one line of JSON a reader.

    pip install atheris                       # Python 3.11 or newer on Linux; nothing of the package needs it
    python benchmarks/fuzz.py "webdataset tar" --seconds 300 --corpus fuzz
    python benchmarks/fuzz.py --list
    python benchmarks/fuzz.py "webdataset tar" --corpus fuzz --lines

A finding is whatever is no return and none of the package's own errors: another exception, a broken assertion about
what came out, an opened file outside the target's folder, a program started, 10 seconds, 2 GiB. Its input is kept
in CORPUS/READER/findings, one for each place; fuzzing goes on after it.
"""

import argparse
import importlib
import inspect
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import fuzz_pictures  # noqa: F401, registers its targets
import fuzz_texts  # noqa: F401, likewise
import fuzz_weights  # noqa: F401, likewise
from fuzz_json import mutated
from fuzz_target import TARGETS, Target

REPO = Path(__file__).resolve().parents[1]
SECONDS, MIB = 10, 2048  # that a call may take, and what the process may take more than at its start
NO_ANSWER = 600  # seconds after which native code counts as stuck, and the process ends
MEMORY = "/dev/shm"
RESTARTS = 20  # after what ends the process: a crash of native code, no answer, no memory
PROGRAMS = r"os\.(system|exec|spawn|posix_spawn|fork|kill|chmod|link|symlink)|subprocess|ctypes\.dlopen"
FORBIDDEN = re.compile(rf"{PROGRAMS}|socket\.(connect|getaddrinfo|bind)|pickle\.find_class")


class Watch:
    """What happened during a call that no reader may do, by Python's audit events."""

    def __init__(self, folder: Path):
        known = str(folder), str(REPO), sys.prefix, sys.base_prefix, "/usr", "/proc", "/sys", "/etc"
        self.seen, self.on, self._known = [], False, known
        sys.addaudithook(self._note)

    def _note(self, event, arguments):
        if not self.on:
            return
        if event == "open":
            path, _, flags = arguments
            path = os.path.realpath(path) if isinstance(path, str) else ""
            if path and not path.startswith(self._known[:1] if flags & os.O_WRONLY else self._known):
                self.seen.append(f"opened {path[:80]!r}")
        elif FORBIDDEN.match(event):
            self.seen.append(event)


class Slow(BaseException):
    """A call takes longer than SECONDS."""


def _stop(*_):
    raise Slow


class Fuzzer:
    """One target: calls it, and keeps an input for each kind of finding."""

    def __init__(self, target: Target, folder: Path, findings: Path):
        self.target, self.folder, self.findings, self.found = target, folder, findings, set()
        self.watch = Watch(self.folder)
        signal.signal(signal.SIGVTALRM, _stop)

    def call(self, content: bytes, keep: bool = True) -> None:
        if any(self.folder.iterdir()):
            shutil.rmtree(self.folder)
            self.folder.mkdir()
        problem = ""
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)  # of the CPU: others may have it
        self.watch.on = True
        try:
            self.target.read(content, self.folder)
        except BaseException as error:  # that of a panic in Rust, and Slow, are none of Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            if not _is_own(error):
                problem = _describe(error)
        finally:
            self.watch.on = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if self.watch.seen:
            problem, self.watch.seen = self.watch.seen[0], []
        if keep and problem and problem not in self.found:
            self.found.add(problem)
            name = re.sub(r"\W+", "-", problem)[:120]
            (self.findings / name).write_bytes(content)
            print(f"finding: {problem}", file=sys.stderr, flush=True)


def _is_own(error: BaseException) -> bool:
    from t2i_jax.data.images import Unreadable
    from t2i_jax.errors import UserError

    return isinstance(error, UserError | Unreadable)


def _describe(error: BaseException) -> str:
    """The exception and the last place in the package, or where there is none in a target."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/t2i_jax/" in frame.filename] or frames
    return f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno} {own[-1].name}"


def fuzz(name: str, seconds: int, corpus: Path, folder: Path) -> None:
    """Fuzz in this process, until libFuzzer ends it."""
    import atheris

    target = TARGETS[name]
    with atheris.instrument_imports(include=["t2i_jax"]):
        fuzzer = Fuzzer(target, folder, corpus / "findings")
        seeds = target.seeds()
        for number, seed in enumerate(seeds):
            (corpus / "inputs" / f"seed-{number}").write_bytes(seed)
            fuzzer.call(seed, keep=False)  # imports all that it needs
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MIB * 2**20,) * 2)
    most = max(4096, 2 * max(map(len, seeds)))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={most}",
        f"-timeout={NO_ANSWER}",
        f"-report_slow_units={NO_ANSWER}",
        "-rss_limit_mb=4096",
    ]
    options += [f"-artifact_prefix={corpus / 'findings'}/", "-print_final_stats=1", str(corpus / "inputs")]
    mutator = {"custom_mutator": mutated} if target.json else {}
    atheris.Setup([sys.argv[0], *options], fuzzer.call, **mutator)
    atheris.Fuzz()


def run(args, corpus: Path) -> dict:
    """Fuzz a target in processes of its own, and what came of it."""
    for part in ("inputs", "findings"):
        (corpus / part).mkdir(parents=True, exist_ok=True)
    took, executions, edges, features = 0, 0, 0, 0
    for _ in range(RESTARTS):
        if took >= args.seconds:
            break
        options = ["--seconds", str(args.seconds - took), "--corpus", args.corpus]
        started = time.monotonic()
        with tempfile.TemporaryDirectory(
            prefix="t2i-fuzz-", dir=MEMORY if os.path.isdir(MEMORY) else None
        ) as folder:
            command = [sys.executable, __file__, args.reader, *options, "--here", folder]
            done = subprocess.run(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        said = done.stderr.decode(errors="replace")
        (corpus / "log.txt").write_text(said)
        ended = re.search(r"Done \d+ runs in (\d+) second", said)
        took += int(ended[1]) if ended else round(time.monotonic() - started)
        lines = re.findall(r"^#\d+\s.*?cov: (\d+) ft: (\d+)", said, re.MULTILINE)
        executions += int((re.findall(r"^(?:#|Done )(\d+)", said, re.MULTILINE) or ["0"])[-1])
        edges, features = (max([now, *(int(line[i]) for line in lines)]) for i, now in enumerate((edges, features)))
    found = sorted(path.name for path in (corpus / "findings").iterdir())
    used = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)
    numbers = {"executions": executions, "seconds": took, "cpu_seconds": used, "edges": edges, "features": features}
    return {"reader": args.reader, **numbers, "findings": found}


def lines_reached(name: str, corpus: Path) -> dict:
    """The share of the lines within functions of a target's module that its corpus reaches."""
    target, reached, every = TARGETS[name], set(), set()
    module = importlib.import_module(f"t2i_jax.{target.module}")
    codes = [compile(Path(module.__file__).read_text(), module.__file__, "exec")]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if hasattr(constant, "co_lines")]
        if code.co_flags & inspect.CO_OPTIMIZED:  # a function's, not that of a module or a class
            every |= {line for *_, line in code.co_lines() if line and line != code.co_firstlineno}

    def trace(frame, *_):
        if frame.f_code.co_filename != module.__file__:
            return None
        reached.add(frame.f_lineno)
        return trace

    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(target, Path(folder), corpus)
        sys.settrace(trace)
        for path in sorted((corpus / "inputs").iterdir()):
            fuzzer.call(path.read_bytes(), keep=False)
        sys.settrace(None)
    return {"reader": name, "module": target.module, "lines": round(len(reached & every) / len(every), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", nargs="?", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--corpus", default="fuzz", help="a folder; each reader has one of its own in it")
    parser.add_argument("--list", action="store_true", help="print the readers' names")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--lines", action="store_true", help="no fuzzing: which lines the corpus reaches")
    args = parser.parse_args()
    if args.list:
        print("\n".join(TARGETS))
        return
    corpus = Path(args.corpus, args.reader.replace(" ", "-")).resolve()
    if args.here:
        fuzz(args.reader, args.seconds, corpus, Path(args.here))
    else:
        print(json.dumps(lines_reached(args.reader, corpus) if args.lines else run(args, corpus)), flush=True)


if __name__ == "__main__":
    main()
