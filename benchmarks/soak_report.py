"""What `soak.py` found: a table by kind of fault, what memory did, and the picture of it."""

import statistics
from collections import Counter
from pathlib import Path

OUTCOMES = ("continued", "refused", "lost", "silent")
SETTLED = {"training": 20, "sampling": 6}  # seconds of CPU after which a program has loaded and compiled
LONG = 2  # times as much is a life that says something about memory


def machine() -> str:
    names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return f"{names[0].partition(': ')[2]}, {len(names)} cores" if names else "unknown"


def table(found: dict) -> str:
    """In Markdown."""
    counts = {}
    for fault in found["faults"]:
        counts.setdefault(fault["kind"], Counter())[fault["outcome"]] += 1
    lines = [f"| fault | tried | {' | '.join(OUTCOMES)} |", "|---|" + "---|" * (1 + len(OUTCOMES))]
    for kind in sorted(counts):
        lines.append(_row(kind, counts[kind]))
    lines.append(_row("**all**", sum(counts.values(), Counter())))
    ends = Counter((run["name"].partition("-")[0], bool(run["differs"])) for run in found["runs"])
    lines += [
        "",
        f"{found['seconds'] / 60:.0f} minutes, {found['date']}, {found['machine']}",
        f"complete runs: {sum(n for (kind, _), n in ends.items() if kind == 'training')}, jobs of pictures:"
        f" {sum(n for (kind, _), n in ends.items() if kind == 'sampling')}; other than the reference:"
        f" {sum(n for (_, differs), n in ends.items() if differs)}",
        f"flipped bits in files that nobody read before the next save: {_sum(found, 'unread')}; tracebacks:"
        f" {sum('traceback' in fault for fault in found['faults'])}; late writes of TensorStore:"
        f" {sum(program['late_writes'] for program in found['programs'])}",
        *memory(found),
        *found["notes"],
    ]
    return "\n".join(lines)


def _row(kind: str, counts: Counter) -> str:
    cells = [counts.total(), *(counts[outcome] for outcome in OUTCOMES)]
    still = f" ({counts['open']} still open)" if counts["open"] else ""
    return f"| {kind}{still} | {' | '.join(map(str, cells))} |"


def _sum(found: dict, field: str) -> int:
    return sum(bool(fault.get(field)) for fault in found["faults"])


def memory(found: dict) -> list[str]:
    """Within long lives, and from run to run."""
    lines = []
    for kind in ("training", "sampling"):
        lives = [x["seen"] for x in found["programs"] if x["kind"] == kind and x["seen"]]
        peaks, growths = [], []
        for seen in lives:
            later = [look for look in seen if look[4] > SETTLED[kind]]
            if later:
                peaks.append(max(look[1] for look in seen))
            if seen[-1][4] > LONG * SETTLED[kind]:
                growths.append((later[-1][1] - later[0][1], later[-1][4] - later[0][4]))
        looks = [look for seen in lives for look in seen]
        if not looks:
            continue
        lines.append(
            f"{kind}: {len(lives)} processes, at most {max(look[1] for look in looks):.0f} MiB,"
            f" {max(look[2] for look in looks)} threads, {max(look[3] for look in looks)} open files"
        )
        if growths:
            grown, took = zip(*growths, strict=True)
            lines.append(
                f"  {len(growths)} took above {LONG * SETTLED[kind]} s of CPU; from {SETTLED[kind]} s on, for up to"
                f" {max(took):.0f} s, memory grew by {statistics.median(grown):.0f} MiB (median), at most by"
                f" {max(grown):.0f}"
            )
        if len(peaks) > 5:
            third = len(peaks) // 3
            first, last = statistics.median(peaks[:third]), statistics.median(peaks[-third:])
            lines.append(f"  median peak of the first third of processes {first:.0f} MiB, of the last {last:.0f}")
    return lines


def plot(found: dict, path: Path) -> None:
    """Memory against time, with faults as ticks; below it threads and open files."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    colours = {"training": "C0", "sampling": "C1", "second": "0.6"}
    for program in found["programs"]:
        if program["kind"] in colours and program["seen"]:
            times, resident, threads, opened, _ = zip(*program["seen"], strict=True)
            minutes = [t / 60 for t in times]
            above.plot(minutes, resident, color=colours[program["kind"]], linewidth=0.9)
            if program["kind"] == "training":
                below.plot(minutes, threads, color="C4", linewidth=0.8)
                below.plot(minutes, opened, color="C2", linewidth=0.8)
    for kind, colour in colours.items():
        above.plot([], [], color=colour, label={"second": "second starter"}.get(kind, kind))
    groups = sorted({fault["kind"].partition(",")[0] for fault in found["faults"]})
    for row, group in enumerate(groups):
        times = [fault["at"] / 60 for fault in found["faults"] if fault["kind"].partition(",")[0] == group]
        above.plot(times, [-45 * (row + 1)] * len(times), "|", color=f"C{row + 2}", markersize=8, label=group)
    above.axhline(0, color="0.8", linewidth=0.8)
    above.set(ylabel="resident memory, MiB", title="each line is a process, each tick a fault")
    above.legend(ncols=3, fontsize="small", loc="upper left")
    above.set_yticks([tick for tick in above.get_yticks() if tick >= 0])
    above.set_ylim(top=above.get_ylim()[1] * 1.25)
    below.plot([], [], color="C4", label="threads")
    below.plot([], [], color="C2", label="open files")
    below.set(xlabel="minutes", ylabel="of trainings")
    below.legend(fontsize="small", loc="upper left")
    figure.savefig(path, dpi=90)
