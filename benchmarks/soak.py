"""Hours of training and sampling side by side on a tiny model, with a random fault now and then: what is lost?

    python benchmarks/soak.py --hours 2 --seed 0 --folder runs/soak
    python benchmarks/soak.py --report --folder runs/soak --png docs/soak.png

A tokenizer and a translator are trained once without a fault, and pictures are drawn of the translator. Then, on a
small disk of their own (a tmpfs, where it may be mounted), the same training and the same drawing go on again and
again, and each time that they come to their end it must be the same end, bit for bit. A program that ends early is
started again by the same command. A fault comes `--every` seconds, on a program that got on since its last one; one
in four comes at any time. Every `SPELL` of seconds training is spared for `SPARED`, so that it lives long enough to
show what its memory does. Linux alone.

What is found lies in FOLDER: `soak.json` (faults, runs, memory), `logs/`, `tracebacks/`, and in `lost/` the files
as they were when something was lost. Ctrl-C ends it, with the table as far as it went.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import soak_report
from soak_programs import Program, seal
from soak_sides import Sampling, Training, flippable

LOOK = 2.0  # seconds between two looks at memory
SPELL, SPARED = 1200, 360
DISK = 48  # MiB
SECOND = 600  # seconds that a second starter may take to be refused
KINDS = {  # how often each comes
    "training": {"kill": 3, "stop": 2, "flip": 4, "second starter": 2},
    "sampling": {"kill": 2, "stop": 1, "flip": 3},
    "both": {"full disk": 2, "read-only": 2},
}


class Soak:
    """The two programs, the faults, and what became of them."""

    def __init__(self, folder: Path, seed: int, every: float):
        self.folder, self.every, self.random = folder, every, random.Random(seed)
        self.disk, self.clock, self.ticked, self.due = folder / "disk", 0.0, time.monotonic(), every
        self.faults, self.programs, self.runs, self.notes = [], [], [], []
        self.condition = self.second = None  # (fault, seconds when it ends, undo) and (program, fault)
        self.any_time, self.looked = False, 0.0
        self.sides = {}

    def now(self) -> float:
        return self.clock

    def tick(self) -> None:
        """Let time go on, but for what this process was stopped."""
        time.sleep(0.25)
        now = time.monotonic()
        self.clock, self.ticked = self.clock + min(now - self.ticked, 5.0), now

    def say(self, text: str) -> None:
        print(f"{self.now() / 60:6.1f} min  {text}", flush=True)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.say(text)

    def prepare(self) -> None:
        """The run without a fault and its pictures, and the disk."""
        for name in ("logs", "tracebacks", "lost", "reference"):
            (self.folder / name).mkdir(exist_ok=True)
        reference = self.folder / "reference"
        for side in (Training, Sampling):
            for job in side.reference_jobs():
                if not (reference / f"{job[0]}.done").exists():
                    program = Program(self, "reference", job[1:], cwd=reference)
                    code = program.process.wait()
                    assert code == 0, program.said()
                    (reference / f"{job[0]}.done").touch()
        self.disk.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(self.disk)]
        done = subprocess.run(mount, capture_output=True, text=True)
        self.mounted = done.returncode == 0
        if not self.mounted:
            self.note(f"no small disk can be mounted ({done.stderr.strip()}): it is never full")
        self.sides = {"training": Training(self), "sampling": Sampling(self)}

    def run(self, seconds: float) -> None:
        """Until the time is over, and the last faults have an outcome."""
        for side in self.sides.values():
            side.begin()
        while self.now() < seconds or (self.open() and self.now() < seconds + 300):
            self.tick()
            if self.now() - self.looked >= LOOK:
                self.looked = self.now()
                for program in self.alive():
                    program.look()
            self.watch_condition()
            self.watch_second()
            for side in self.sides.values():
                side.watch()
            if self.due <= self.now() < seconds:
                self.strike()

    def open(self) -> list[dict]:
        return [fault for fault in self.faults if fault["outcome"] == "open"]

    def alive(self) -> list[Program]:
        second = [self.second[0]] if self.second else []
        return [side.program for side in self.sides.values() if side.program] + second

    def strike(self) -> None:
        """One fault, if there is a program that it may come to."""
        fit = {name for name, side in self.sides.items() if side.ready(self.any_time)}
        if self.now() % SPELL > SPELL - SPARED or self.second:
            fit.discard("training")
        groups = [group for group in KINDS if group in fit or (group == "both" and len(fit) == 2)]
        if self.condition or not groups:
            return
        weights = [sum(KINDS[group].values()) for group in groups]
        group = self.random.choices(groups, weights)[0]
        kind = self.random.choices(list(KINDS[group]), list(KINDS[group].values()))[0]
        if kind == "full disk" and not self.mounted:
            return
        self.due, self.any_time = (
            self.now() + self.every * self.random.uniform(0.7, 1.3),
            self.random.random() < 0.25,
        )
        self.hit(group, kind)

    def hit(self, group: str, kind: str) -> None:
        side = self.sides.get(group)
        fault = {"at": self.now(), "kind": f"{kind}, {group}" if side else kind, "file": "", "said": "", "open": []}
        fault |= {"outcome": "open", "sides": [group] if side else list(self.sides)}
        self.faults.append(fault)
        for one in [side] if side else self.sides.values():
            if kind != "second starter":
                one.pending.append(fault)
                fault["open"].append(one.kind)
        if kind == "kill":
            side.end(signal.SIGKILL)
        elif kind == "stop":
            number = self.random.choice(side.STOPS)
            fault["file"] = number.name
            side.end(number)
        elif kind == "flip":
            side.end(signal.SIGKILL)
            self.flip(fault, side)
        elif kind == "second starter":
            self.second = Program(self, "second", side.command(), cwd=self.disk), fault
        else:
            self.spoil(fault, kind)
        self.say(f"{fault['kind']} {fault['file']}")

    def flip(self, fault: dict, side) -> None:
        """One bit of one file, between two starts."""
        kinds = flippable(self.disk, side)  # a file at a time
        what = self.random.choice(sorted(kinds))
        path = self.random.choice(sorted(kinds[what]))
        content = path.read_bytes()
        damaged, bit = bytearray(content), self.random.randrange(8 * len(content))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        name = path.relative_to(self.disk).as_posix()
        fault |= {"kind": f"flip, {what}", "file": name, "bit": bit, "promised": side.promises(path, what)}
        side.flipped[name] = content, bytes(damaged), fault

    def spoil(self, fault: dict, kind: str) -> None:
        """Fill the disk, or make it or the folders on it read-only, for some seconds."""
        if kind == "full disk":
            ballast = self.disk / "ballast"
            room = self.random.choice((0, 0, 1 << 14, 1 << 18))
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while (free := shutil.disk_usage(self.disk).free) > room:
                    file.write(bytes(min(free - room, 1 << 20)))
            fault["file"], undo = f"{room} bytes left", lambda: ballast.unlink(missing_ok=True)
        else:
            undo = self.make_read_only(fault)
        self.condition = fault, self.now() + self.random.uniform(8, 40), undo
        for side in self.sides.values():
            side.baseline = None

    def make_read_only(self, fault: dict):
        remount = ["mount", "-o", "remount,ro", str(self.disk)]
        if self.mounted and subprocess.run(remount, capture_output=True).returncode == 0:
            fault["file"] = "the disk"
            return lambda: subprocess.run(["mount", "-o", "remount,rw", str(self.disk)], check=True)
        run, samples = (side.folder() for side in self.sides.values())  # files are open on the disk
        folders = [path for path in (run, run / "checkpoints", samples) if path.is_dir()]
        fault["file"] = ", ".join(path.relative_to(self.disk).as_posix() for path in folders)
        seal(folders, on=True)
        return lambda: seal(folders, on=False)

    def watch_condition(self) -> None:
        if self.condition and self.now() > self.condition[1]:
            self.end_condition()

    def end_condition(self) -> None:
        """Make room, and let folders be written."""
        if self.condition:
            fault, _, undo = self.condition
            undo()
            self.condition, fault["ended"] = None, self.now()
            for side in self.sides.values():
                side.baseline = side.progress() if side.program else None

    def watch_second(self) -> None:
        """It is refused, or finds a finished run; where it came first, it is the training from then on."""
        if not self.second:
            return
        program, fault = self.second
        code, side = program.process.poll(), self.sides["training"]
        if code is None and self.now() - program.began > SECOND and side.program:
            program.kill()
            self.close(fault, "lost", "a second starter neither was refused nor ended")
        elif code is None and not side.program:
            side.program, program.kind = program, side.kind
            self.close(fault, "refused", "the second starter came first, the first one was refused")
        elif code == 2 and "is in use" in program.said():
            self.close(fault, "refused", program.last())
        elif code is not None:
            self.check_traceback(program, fault)
            finished = code == 0 and "is finished" in program.said()
            self.close(fault, "continued" if finished else "lost", program.last())
        else:
            return
        self.second = None

    def close(self, fault: dict, outcome: str, said: str = "") -> None:
        """Give a fault its outcome; silent and lost stay what they are."""
        if fault["outcome"] not in ("lost", "silent"):
            fault["outcome"] = outcome
        fault["said"], fault["closed"] = fault["said"] or said, self.now()
        self.say(f"  {fault['kind']} {fault['file']} -> {fault['outcome']}: {fault['said'][:300]}")

    def check_traceback(self, program: Program, fault: dict | None) -> bool:
        text = program.traceback()
        if text:
            kept = self.folder / "tracebacks" / f"{len(self.programs):04d}-{program.kind}"
            kept.write_text(text)
            self.note(f"traceback of {program.kind} in {kept.name}, fault {fault and fault['kind']}")
            if fault:
                fault["traceback"] = kept.name
        return bool(text)

    def keep(self, name: str) -> None:
        """A copy of the disk, to look at."""
        self.note(f"kept: lost/{name}")
        with suppress(shutil.Error):  # the other program goes on
            shutil.copytree(self.disk, self.folder / "lost" / name, ignore=shutil.ignore_patterns("ballast"))

    def leave(self) -> dict:
        """Everything ended and unmounted, and what was found."""
        for program in self.alive():
            program.kill()
        with suppress(OSError, subprocess.SubprocessError):
            if self.condition:
                self.condition[2]()
        if getattr(self, "mounted", False):
            subprocess.run(["umount", "--lazy", str(self.disk)], check=False)
        programs = [program.about() for program in self.programs]
        found = {"seconds": self.now(), "faults": self.faults, "runs": self.runs, "notes": self.notes}
        found |= {"programs": programs, "machine": soak_report.machine(), "date": time.strftime("%Y-%m-%d")}
        (self.folder / "soak.json").write_text(json.dumps(found))
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the faults (0)")
    parser.add_argument("--every", type=float, default=20, help="seconds between two faults, at least (20)")
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"))
    parser.add_argument("--report", action="store_true", help="no soak: table and picture of what was found")
    parser.add_argument("--png", type=Path, help="(FOLDER/soak.png)")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.report:
        found = json.loads((folder / "soak.json").read_text())
    else:
        for number in (signal.SIGINT, signal.SIGTERM):  # a program started in the background ignores the first
            signal.signal(number, signal.default_int_handler)
        soak = Soak(folder, arguments.seed, arguments.every)
        try:
            soak.prepare()
            soak.run(3600 * arguments.hours)
        except KeyboardInterrupt:
            soak.note("ended by a signal")
        finally:
            found = soak.leave()
    print(soak_report.table(found))
    soak_report.plot(found, arguments.png or folder / "soak.png")


if __name__ == "__main__":
    main()
