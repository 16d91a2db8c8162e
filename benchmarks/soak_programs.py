"""Programs that `soak.py` keeps going: what they take, how they end, and which faults explain it."""

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
# What TensorStore prints, now and then, of writes that end after one of them found the disk full.
LATE_WRITES = re.compile(r"Traceback \(most recent call last\):\n(?:  .*\n)+RuntimeError: Event loop is closed\n")

ASKED = 300  # seconds after a signal in which a program should end
HUNG = 900  # seconds without anything new


class Program:
    """A process, what it says, and what it takes."""

    def __init__(self, soak, kind: str, command: list[str], cwd: Path):
        self.soak, self.kind, self.began, self.seen = soak, kind, soak.now(), []
        soak.programs.append(self)
        self.log = soak.folder / "logs" / f"{len(soak.programs):04d}-{kind}"
        home = soak.folder / "cache"
        environment = os.environ | {"PYTHONPATH": str(REPO), "XDG_CACHE_HOME": str(home), "TQDM_DISABLE": "1"}
        environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
        with self.log.open("wb") as log:
            options = {"stdout": subprocess.DEVNULL, "stderr": log, "process_group": 0}
            self.process = subprocess.Popen(command, cwd=cwd, env=environment, **options)

    def look(self) -> None:
        """Resident MiB, threads, open files, and seconds of CPU until now."""
        proc = Path("/proc", str(self.process.pid))
        with suppress(OSError, KeyError, ValueError):  # it may end at any moment
            status = dict(x.split(":", 1) for x in (proc / "status").read_text().splitlines())
            resident = int(status["VmRSS"].split()[0]) / 1024
            opened = len(list((proc / "fd").iterdir()))
            ticks = sum(map(int, (proc / "stat").read_text().rpartition(")")[2].split()[11:13]))
            about = round(resident, 1), int(status["Threads"]), opened, ticks / os.sysconf("SC_CLK_TCK")
            self.seen.append((round(self.soak.now(), 1), *about))

    def stopped(self) -> bool:
        """Whether somebody has it wait."""
        with suppress(OSError):
            return "State:\tT" in Path("/proc", str(self.process.pid), "status").read_text()
        return False

    def said(self) -> str:
        return LATE_WRITES.sub("", self.log.read_text(errors="replace").replace("\r", "\n"))

    def last(self) -> str:
        """The line that it ended with."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        own = [line for line in lines if line.startswith(("train.py: ", "t2i: "))]
        return (own or lines or [""])[-1]

    def traceback(self) -> str:
        return self.said() if "Traceback (most recent" in self.said() else ""

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def about(self) -> dict:
        fields = {"kind": self.kind, "began": self.began, "code": self.process.poll(), "seen": self.seen}
        return fields | {"late_writes": len(LATE_WRITES.findall(self.log.read_text(errors="replace")))}


class Side:
    """One of the two: it is started again whenever it ends, and its end compared with the reference."""

    kind: str
    STOPS = (signal.SIGINT,)

    def __init__(self, soak):
        self.soak, self.program, self.pending, self.flipped = soak, None, [], {}
        self.number, self.baseline, self.signalled, self.new = 0, None, None, (0, 0.0)
        self.crashes, self.asked = 0, 0.0

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number:03d}"

    def begin(self) -> None:
        """A new run or job, from nothing."""
        self.soak.end_condition()
        self.number += 1
        self.clear()
        self.start()

    def start(self) -> None:
        self.program = Program(self.soak, self.kind, self.command(), cwd=self.soak.disk)
        self.baseline = None if self.soak.condition else self.progress()
        self.signalled, self.new = None, (self.progress(), self.soak.now())

    def ready(self, any_time: bool) -> bool:
        """Whether a fault may come: it got on since it was started, or that does not matter."""
        if not self.program or self.signalled or self.program.process.poll() is not None:
            return False
        return any_time or (self.baseline is not None and self.progress() > self.baseline and not self.pending)

    def end(self, number: int) -> None:
        self.signalled, self.asked = number, self.soak.now()
        if number == signal.SIGKILL:
            self.program.kill()
        else:
            self.program.process.send_signal(number)

    def watch(self) -> None:
        """What became of it since the last look."""
        if self.program is None and not self.soak.second:
            self.start()
        if self.program is None:
            return
        code, progress, now = self.program.process.poll(), self.progress(), self.soak.now()
        if code is not None:
            if self.kind == "training" and self.soak.second and code != -signal.SIGKILL:
                if code == 2 and "is in use" in self.program.said():
                    self.program = None  # the second starter came first
                return  # it still looks at this run
            self.ended(code)
            return
        if progress != self.new[0] or self.program.stopped():
            self.new = progress, now
        if self.signalled:
            if now - self.asked > ASKED:
                self.soak.note(f"{self.kind} goes on {ASKED} s after {self.signalled!r}, and is killed")
                self.end(signal.SIGKILL)
        elif self.baseline is not None and progress > self.baseline:
            self.crashes = 0
            for fault in list(self.pending):
                self.resolve(fault, "continued")
        elif now - self.new[1] > HUNG:
            self.lose(f"nothing new for {HUNG} s")

    def resolve(self, fault: dict, outcome: str, said: str = "") -> None:
        self.pending.remove(fault)
        fault["open"].remove(self.kind)
        if fault["file"] in self.flipped and self.flipped[fault["file"]][2] is fault:
            content, damaged, _ = self.flipped.pop(fault["file"])
            path = self.soak.disk / fault["file"]
            self.soak.end_condition()
            if path.exists() and path.read_bytes() == damaged:
                fault["unread"] = outcome == "continued" and fault["file"] not in self.program.said()
                path.write_bytes(content)
        if not fault["open"] or outcome in ("lost", "silent"):
            said = said or next((x for x in self.program.said().splitlines() if x.startswith("warning: ")), "")
            self.soak.close(fault, outcome, said)

    def ended(self, code: int) -> None:
        program, said = self.program, self.program.said()
        blamed = self.pending[-1] if self.pending else None
        crashed = self.soak.check_traceback(program, blamed)
        if code == 0:
            self.check()
            return
        if code == 2 and not crashed:
            if not self.refused(said):
                self.lose(program.last())
                return
        elif code not in (-(self.signalled or 0), 128 + (self.signalled or 0)):
            self.crashes += 1
            self.soak.note(f"{self.kind} ended with {code}: {program.last()[:300]}")
            if self.crashes > 2:
                self.lose(program.last())
                return
        elif self.signalled != signal.SIGKILL and blamed:
            blamed["said"] = program.last()
        self.start()

    def refused(self, said: str) -> bool:
        """Whether a fault explains it; a file without a second copy is put back."""
        last = self.program.last()
        flips = [fault for fault in self.pending if fault["file"] in self.flipped]
        for fault in sorted(flips, key=lambda one: one["file"] not in last):
            if Path(fault["file"]).name in said:
                if fault["promised"]:
                    self.soak.keep(f"{len(self.soak.faults):04d}-{self.kind}")
                self.resolve(fault, "lost" if fault["promised"] else "refused", last)
                return True
        for fault in self.pending:
            if fault["kind"] in ("full disk", "read-only"):
                fault["said"] = fault["said"] or last
                if fault.get("ended", self.soak.now()) >= self.program.began:
                    return True
        return False

    def lose(self, said: str) -> None:
        """It cannot go on: everything is kept, and it begins anew."""
        self.soak.keep(f"{len(self.soak.faults):04d}-{self.kind}")
        self.program.kill()
        self.soak.note(f"{self.kind} is lost: {said[:500]}")
        for fault in list(self.pending):
            self.resolve(fault, "lost", said)
        self.crashes = 0
        self.begin()

    def check(self) -> None:
        """The end is the reference's."""
        wrong = self.differs()
        self.soak.runs.append({"name": self.name, "at": self.soak.now(), "differs": wrong})
        self.soak.say(f"{self.name} ended; {'differs: ' + ', '.join(wrong) if wrong else 'as the reference'}")
        if wrong:
            self.soak.keep(f"{self.name}-differs")
        for fault in list(self.pending):
            self.resolve(fault, "continued")
        if wrong:
            for fault in [x for x in self.soak.faults if x["at"] > self.since and self.kind in x["sides"]][-1:]:
                fault["outcome"] = "silent"
        self.begin()


def seal(folders: list[Path], *, on: bool) -> None:
    """Make folders read-only, or undo it; modes mean nothing to root."""
    for path in filter(Path.exists, folders):
        if os.geteuid() == 0:
            subprocess.run(["chattr", "+i" if on else "-i", str(path)], check=True)
        else:
            path.chmod(0o500 if on else 0o700)
