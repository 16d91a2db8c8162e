"""What tests share: one compilation cache, one prepared data set, one trained smoke run, each made once a session.

Under pytest-xdist every worker asks for them; a file lock lets the first one make them and the others wait.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import filelock
import jax
import pytest

# Compiling takes most of the suite's time: without LLVM's optimizations half of it, without the newer of XLA's two
# ways to write fused loops (which LLVM takes long over) a third less again, where jaxlib has both: 0.12 stops at
# flags that it does not know. Subprocesses inherit this. The long lane compiles as users do; its workers find that
# in the environment.
QUICK = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 12):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
if "--long" in sys.argv:
    os.environ["T2I_COMPILE_AS_USERS"] = "1"
if "T2I_COMPILE_AS_USERS" not in os.environ:
    os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}"

with suppress(ImportError):  # inputs that tests generate: few in the fast lane, always the same
    import hypothesis

    hypothesis.settings.register_profile(
        "t2i",
        max_examples=400 if "T2I_COMPILE_AS_USERS" in os.environ else 40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
    )
    hypothesis.settings.load_profile("t2i")

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))  # train.py and configs/, however pytest was called


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="tests of more than some 5 seconds too")
    parser.addoption("--long", action="store_true", help="all: every fault at every moment, and a table of them")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: runs with --slow and --long")
    config.addinivalue_line("markers", "long: runs with --long alone")


def pytest_collection_modifyitems(config, items):
    long = config.getoption("long")
    lanes = {"long": long, "slow": long or config.getoption("slow")}
    for item in items:
        for lane, runs in lanes.items():
            if lane in item.keywords and not runs:
                item.add_marker(pytest.mark.skip(reason=f"runs with --{lane}"))
                break


@pytest.fixture
def record_fault(record_property):
    """`record_fault(fault, outcome)` for the table: first "tried", then "survived" or "refused" if it was."""
    return lambda fault, outcome: record_property("fault", (fault, outcome))


def pytest_terminal_summary(terminalreporter, config):
    """What became of each fault: what was tried, and neither survived nor was refused, is lost."""
    if not config.getoption("long"):
        return
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    table, tests = {}, {}
    for report in reports:
        for fault, outcome in (value for name, value in report.user_properties if name == "fault"):
            table.setdefault(fault, Counter())[outcome] += 1
            tests[fault] = report.nodeid.partition("[")[0]
    lines = ["| fault | tried | survived | refused | lost | pytest --long |", "|---|---|---|---|---|---|"]
    for fault, counts in sorted(table.items(), key=lambda row: tests[row[0]]):
        tried, survived, refused = (counts[name] for name in ("tried", "survived", "refused"))
        lost = tried - survived - refused
        lines.append(f"| {fault} | {tried} | {survived} | {refused} | {lost} | `{tests[fault]}` |")
    total = sum(table.values(), Counter())
    lines.append(f"all: {total['tried']} tried, {total['survived']} survived, {total['refused']} refused")
    terminalreporter.write_line("\n".join(["", *lines]))


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder of this session, one for all workers."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def compiled_once(shared):
    """What one test or subprocess has compiled, the others load: compiling takes most of a smoke run's time."""
    settings = {
        "jax_compilation_cache_dir": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(shared / "compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(scope="session")
def once(shared):
    """Call `make(folder)` in the first worker that asks for the name; every worker gets the folder."""

    def call(name, make):
        folder = shared / name
        with filelock.FileLock(shared / f"{name}.lock"):
            done = shared / f"{name}.done"
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return call


@pytest.fixture(scope="session")
def data_dir(once):
    """Where `captioned_digits/tiny` lies prepared."""
    from t2i_jax.data.sources import captioned_digits

    return once("data", lambda folder: captioned_digits.open("train", str(folder), variant="tiny"))


@pytest.fixture(scope="session")
def smoke_run(once, data_dir):
    """A translator's smoke run with its tokenizer's, trained by one command; for reading only, copy to change it.

    Attributes: `translator` and `tokenizer`, run folders; `argv`, the command's arguments; `stderr`.
    """

    def arguments(folder):
        options = [f"--workdir={folder / 'translator'}", f"--config.parents.tokenizer.run={folder / 'tokenizer'}"]
        return ["--config=configs/translator.py:smoke", *options, f"--config.data.data_dir={data_dir}"]

    def train(folder):
        command = [sys.executable, "train.py", *arguments(folder)]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        (folder / "stderr").write_text(done.stderr)

    folder = once("smoke", train)
    return SimpleNamespace(
        translator=folder / "translator",
        tokenizer=folder / "tokenizer",
        argv=arguments(folder),
        stderr=(folder / "stderr").read_text(),
    )


@pytest.fixture(scope="session")
def untouched(once):
    """A world (see `worlds.py`) in which a translator and its tokenizer were trained and nothing went wrong."""
    import worlds

    def train(folder):
        folder.mkdir()
        start = time.monotonic()
        code, said = worlds.run(folder / "untouched", ("copy", "translator's step 5"))
        assert code == 0, said
        (folder / "untouched" / "seconds").write_text(str(time.monotonic() - start))

    return once("worlds", train) / "untouched"


@pytest.fixture(scope="session")
def interrupted(untouched):
    """What a kill at the translator's step 5 leaves of it."""
    return untouched.parent / "interrupted"


@pytest.fixture
def read_only():
    """A look at a folder's files but its locks; call it again to see whether they are what they were."""

    def look(folder):
        paths = (
            path for path in sorted(Path(folder).rglob("*")) if path.is_file() and not path.name.startswith("lock")
        )
        return {path: path.read_bytes() for path in paths}

    return look


@pytest.fixture
def disk(tmp_path):
    """`disk("size=64k")` mounts a small disk and returns its folder; called again, it mounts over it."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


@pytest.fixture
def command(monkeypatch, capsys):
    """The command line of train.py, in this process: `code, lines on stderr = command(*argv)`."""
    from t2i_jax import cli

    def call(*argv, cwd=REPO):
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        try:
            code = cli.main(["train", *map(str, argv)], program="train.py")
        except SystemExit as exit_:
            code = exit_.code
        out, err = capsys.readouterr()
        assert out == ""
        return code, err.replace("\r", "\n").splitlines()

    return call


@pytest.fixture(scope="session")
def smoke(once, data_dir, smoke_run):
    """`smoke.config("vqvae")`: a config's smoke variant on the shared data and, where it needs one, tokenizer.

    `smoke.run("vqvae")`: the run of it, trained once a session; for reading only.
    """
    from t2i_jax.config import load_config
    from t2i_jax.loop.train import train

    def config(name):
        config = load_config(f"{name}:smoke")
        config.data.data_dir = str(data_dir)
        if config.parents:
            config.parents.tokenizer.run = str(run(config.parents.tokenizer.config.model_name))
        return config

    def run(name):
        trained = {"translator": smoke_run.translator, "patch_vqvae": smoke_run.tokenizer}
        return trained.get(name) or once(f"smoke-{name}", lambda folder: train(config(name).lock(), folder))

    return SimpleNamespace(config=config, run=run)


@pytest.fixture(scope="session")
def smoke_config(smoke):
    """`smoke_config("vqvae")`: see `smoke`."""
    return smoke.config


@pytest.fixture(scope="module")
def prompts():
    """Prompts that leave much open, for tests of diversity."""
    from t2i_jax.evals.diversity import make_open_prompts

    return make_open_prompts(seed=0, per_kind=400)
