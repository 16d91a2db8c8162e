"""The page of `greedy_collapse.py`: tables, curves, images, and what they say of each explanation."""

from pathlib import Path

import numpy as np
from PIL import Image

COLLAPSED = 0.5  # of the data's distinct codes a picture: with fewer, greedy pictures count as collapsed
TEMPLATE = """# Why greedy pictures collapse

The report (section 3.2) trained BERT-base and GPT-2 on COCO and saw two kinds of picture. The "forward" ones,
each token the likeliest after the *true* ones before it, resembled the original. The greedy ones, each token
the likeliest after those *drawn* before it, were of one colour. It offered explanations and could test none.
Here they are tested on embedded digits, at a size that two cores train: 8 x 8 tokens of 512 codes, row by row,
width {width}, two layers each for reading and writing, {items:,} pictures of training for every arm, seed
{seed}, one run each.

```sh
{command}
```

{machine}; {minutes:.0f} minutes in all, data and tokenizer ({tokenizer:.0f} of them) included.

**In short: {short}**

| arm | batch | learning rate | captions dropped |
|---|---|---|---|
| report | 24 | 10 warm-up steps to 3e-3, a line down, restarts after 1/5 and 1/2 at 0.6 and 0.5 of it | none |
| report, rate scaled to the width | 24 | the same from {scaled:g}, what 3e-3 is at width 768 by width | none |
| sane | 64 | 100 warm-up steps to 2e-3, a cosine down | a tenth |
| sane, the report's batch | 24 | as sane | a tenth |
| sane, code noise | 64 | as sane; a tenth of the codes it reads are random | a tenth |

## What each draws

{table}

Entropy (nats) is of the codes over all pictures; longest run and distinct codes are means over pictures;
faithful is the share of pictures that show what the caption says (mean over GenEval's six categories; 150
prompts, one picture each). *Forward* takes the likeliest token after the true ones, *forward, drawn* draws
there at temperature 1; all others run free. *Sharpened* is temperature 0.3 with min-p 0.05, *guided*
temperature 1 with a guidance scale of 3; the report's arms never learned to do without a caption and cannot be
guided.

![Six prompts by arm and way of drawing]({stem}-pictures.png)

## While they train

![Loss, validation nats, and greedy tokens over training]({stem}-curves.png)

## The explanations

The first six are the report's. The verdicts are computed (`benchmarks/greedy_collapse_page.py`). The rules stood
before the runs but for two: *more training* is judged by the arm at the scaled rate, which is the one that fell
into the report's state, and the *control* by both of the report's arms.

{verdicts}

What this page cannot say: how COCO's 1,024 tokens of 8,192 behave, and what released weights change. Both would
need the weights, the captions and a GPU (`configs/translator.py:coco_report` against `:coco`).
"""


def write(results: dict, pictures: dict, path: Path, about: dict) -> None:
    """Write the page and, beside it, its two pictures.

    Args:
      results: `seed`, `items`, `tokenizer_seconds` (with the data's), and `arms`: by name `draws` (statistics by
        way of drawing), curves, `seconds`.
      pictures: by arm and way of drawing, uint8 [6, H, W, 3].
      path: of the page.
      about: `command`, `machine`, `width`, `scaled`.
    """
    arms, stem = results["arms"], path.stem
    free = {arm: [draw for draw in drawn if draw != "data"] for arm, drawn in pictures.items()}
    lines = [("data", "", arms["sane"]["draws"]["data"])]
    lines += [(arm, draw, arms[arm]["draws"][draw]) for arm, draws in free.items() for draw in draws]
    table = ["| arm | drawn | entropy | longest run | distinct codes | faithful |", "|---|---|---|---|---|---|"]
    for arm, draw, found in lines:
        numbers = f"{found['entropy']:.2f} | {found['longest_run']:.1f} | {found['distinct']:.1f}"
        table.append(f"| {arm} | {draw} | {numbers} | {found['faithful']:.2f} |")
    text = TEMPLATE.format(
        **about,
        items=results["items"],
        seed=results["seed"],
        minutes=(results["tokenizer_seconds"] + sum(found["seconds"] for found in arms.values())) / 60,
        tokenizer=results["tokenizer_seconds"] / 60,
        table="\n".join(table),
        short=in_short(arms),
        verdicts="\n".join(f"- **{claim}** {words}" for claim, words in verdicts(arms)),
        stem=stem,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    show(pictures, path.with_name(f"{stem}-pictures.png"))
    plot(arms, path.with_name(f"{stem}-curves.png"))


def in_short(arms: dict) -> str:
    """Which arms collapsed, and what those that did not have in common."""
    limit = COLLAPSED * arms["sane"]["draws"]["data"]["distinct"]
    fallen = [name for name, arm in arms.items() if arm["draws"]["greedy"]["distinct"] < limit]
    if not fallen:
        return "no arm collapsed."
    arm = arms[fallen[0]]["draws"]
    return (
        f"greedy pictures collapsed in {len(fallen)} of {len(arms)} arms: {', '.join(fallen)}. There,"
        f" {arm['forward']['distinct']:.0f} distinct codes after true tokens became"
        f" {arm['greedy']['distinct']:.0f} after its own."
    )


def verdicts(arms: dict) -> list[tuple[str, str]]:
    """Each explanation, and whether these runs support or refute it, by rules that know no result."""
    report, scaled, sane, _, noisy = arms.values()
    data, free, forced = (sane["draws"][draw] for draw in ("data", "sampled", "forward, drawn"))
    codes, half = data["distinct"], COLLAPSED * data["distinct"]
    greedy, letter, fallen = (arm["draws"]["greedy"] for arm in (sane, report, scaled))
    robust, wildly = noisy["draws"]["greedy"], scaled["draws"]["sampled"]
    wild = [spread(arm["loss"]) for arm in arms.values()]
    final = [arm["nats"][-1][1] for arm in arms.values()]

    def say(truth):
        return "Supported here." if truth else "Refuted here."

    def grown(arm):
        return arm["distinct"][0][1], arm["distinct"][-1][1]

    return [
        (
            "The loss is unstable because the batch is small.",
            f"{say(wild[3] > 1.3 * wild[2])} Averaged over as many pictures (some 300 a point), the loss wanders"
            f" by {wild[3]:.3f} nats at batch 24 and by {wild[2]:.3f} at 64 (root mean square about its moving"
            " mean): what a small batch adds is a step's sampling noise, 1.63 times that of 64. The report's"
            f" schedule: {wild[0]:.3f}; at the scaled rate {wild[1]:.3f}.",
        ),
        (
            "The loss falls slowly because of the learning rate.",
            f"{say(final[1] > final[2] + 0.1)} After as many pictures the report's schedule is at {final[0]:.2f}"
            f" nats a token with 3e-3 and at {final[1]:.2f} with what that rate is at width 768; the sane one at"
            f" {final[2]:.2f}, and at {final[3]:.2f} with batch 24.",
        ),
        (
            "More training is needed.",
            f"{say(grown(scaled)[1] > grown(scaled)[0] + 0.1 * codes)} At the scaled rate greedy pictures had"
            f" {grown(scaled)[0]:.1f} distinct codes at the first of {len(scaled['distinct'])} looks and"
            f" {grown(scaled)[1]:.1f} at the last. In the sane arm training is what it takes: {grown(sane)[0]:.1f},"
            f" then {grown(sane)[1]:.1f}; the data have {codes:.1f}.",
        ),
        (
            "The model is not robust against errors in its own tokens.",
            f"{say(abs(free['distinct'] - forced['distinct']) > 0.1 * codes)} At temperature 1 sane pictures have"
            f" {free['distinct']:.1f} distinct codes where they run free and {forced['distinct']:.1f} after true"
            f" tokens, longest runs of {free['longest_run']:.1f} and {forced['longest_run']:.1f};"
            f" {free['faithful']:.2f} of them are faithful, {forced['faithful']:.2f} after true tokens. Code noise"
            f" in training: {robust['faithful']:.2f} of the greedy pictures are faithful, {greedy['faithful']:.2f}"
            " without.",
        ),
        ("BERT and GPT-2 had learned language.", "Untested here: no released weights could be had."),
        ("There was too little data.", "Untested here: every arm read the same pictures."),
        (
            "(Ours.) It is greedy search: the likeliest token is the ground's, whatever was learned.",
            f"{say(greedy['distinct'] < half)} The sane weights give {greedy['distinct']:.1f} distinct codes"
            f" greedily and {free['distinct']:.1f} at temperature 1, faithful in {greedy['faithful']:.2f} and"
            f" {free['faithful']:.2f}. At the scaled rate greedy search has {fallen['distinct']:.1f} codes and"
            f" sampling {wildly['distinct']:.1f}, faithful in {fallen['faithful']:.2f} and"
            f" {wildly['faithful']:.2f}.",
        ),
        (
            "(The control.) The report's recipe collapses.",
            f"With its rate scaled to this width: {say(fallen['distinct'] < half).lower()} To the letter, 3e-3 at"
            f" width 96: {say(letter['distinct'] < half).lower()} Collapsed means fewer than {half:.1f} distinct"
            " codes, half the data's."
            + "".join(f" {name}: {arm['draws']['greedy']['distinct']:.1f}." for name, arm in arms.items()),
        ),
    ]


def spread(loss: list) -> float:
    """Root mean square of a loss about its moving mean, over the second half of training."""
    values = np.array([value for _, value in loss])
    kernel = np.ones(9) / 9
    rest = (values[4:-4] - np.convolve(values, kernel, "valid"))[len(values) // 2 :]
    return float(np.sqrt(np.mean(rest**2)))


def show(pictures: dict, path: Path) -> None:
    """Six pictures by way of drawing (down) and arm (across)."""
    from matplotlib.figure import Figure

    draws = list(dict.fromkeys(draw for drawn in pictures.values() for draw in drawn))
    figure = Figure(figsize=(14, 0.48 * len(draws) + 0.4), layout="constrained")
    grid = figure.subplots(len(draws), len(pictures))
    for column, (arm, drawn) in enumerate(pictures.items()):
        grid[0, column].set_title(arm, fontsize="small")
        for row, draw in enumerate(draws):
            axes = grid[row, column]
            axes.set(xticks=[], yticks=[])
            if draw in drawn:
                axes.imshow(np.concatenate(list(drawn[draw]), axis=1), interpolation="nearest")
            else:
                axes.set_frame_on(False)
            if column == 0:
                axes.set_ylabel(draw, rotation=0, ha="right", va="center", fontsize="small")
    figure.savefig(path, dpi=100)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)  # a third of the bytes


def plot(arms: dict, path: Path) -> None:
    """Loss, validation nats, and distinct codes and longest run of greedy pictures, over pictures read."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    titles = {
        "loss": "training loss, nats a token",
        "nats": "validation nats a token",
        "distinct": "greedy: distinct codes a picture",
        "longest_run": "greedy: longest run of one code",
    }
    data = arms["sane"]["draws"]["data"]
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, titles.items(), strict=True):
        for arm, found in arms.items():
            items, values = np.transpose(found[name])
            axes.plot(items, values, label=arm, alpha=0.8, linewidth=1)
        if name in data:
            axes.axhline(data[name], color="grey", linestyle=":", label="data")
        axes.set(xlabel="pictures read", ylabel=title)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=100)
