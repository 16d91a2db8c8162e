"""The page of `greedy_collapse.py`: tables, curves, pictures, and what they say of each explanation."""

from pathlib import Path

import numpy as np
from PIL import Image

from t2i_jax.data.pictures import picture_grid

COLLAPSED = 0.5  # of the data's distinct codes a picture: with fewer, greedy pictures count as collapsed
TEMPLATE = """# Why greedy pictures collapse

The report (section 3.2) trained BERT-base and GPT-2 on COCO and saw two kinds of picture. The "forward" ones,
each token the likeliest after the *true* ones before it, resembled the original. The greedy ones, each token
the likeliest after those *drawn* before it, were of one colour. It offered explanations and could test none.
Here they are tested on embedded digits, at a size that two cores train: 8 x 8 tokens of 512 codes, row by row,
width {width}, two layers each for reading and writing, {items:,} pictures of training for every arm, seed
{seed}, one run each.

    {command}

{machine}. Training took {minutes:.0f} minutes in all.

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

![Pictures of six prompts, a column each; the rows are named below]({stem}-pictures.png)

{legend}

## While they train

![Loss, validation nats, and greedy tokens over training]({stem}-curves.png)

## The explanations

The first six are the report's. The verdicts are computed by rules that stood before the runs
(`benchmarks/greedy_collapse_page.py`).

{verdicts}

What this page cannot say: how COCO's 1,024 tokens of 8,192 behave, and what released weights change. Both would
need the weights, the captions and a GPU (`configs/translator.py:coco_report` against `:coco`).
"""


def write(results: dict, pictures: dict, path: Path, about: dict) -> None:
    """Write the page and, beside it, its two pictures.

    Args:
      results: `seed`, `items`, and `arms`: by name `draws` (statistics by way of drawing), curves, `seconds`.
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
    legend = "Rows from above: the true tokens; " + "; ".join(
        f"*{arm}*: {', '.join(draws)}" for arm, draws in free.items()
    )
    text = TEMPLATE.format(
        **about,
        items=results["items"],
        seed=results["seed"],
        minutes=sum(found["seconds"] for found in arms.values()) / 60,
        table="\n".join(table),
        legend=legend + ".",
        verdicts="\n".join(f"- **{claim}** {words}" for claim, words in verdicts(arms)),
        stem=stem,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    shown = [next(iter(pictures.values()))["data"]]
    shown += [pictures[arm][draw] for arm, draws in free.items() for draw in draws]
    grid = picture_grid(np.concatenate(shown), columns=6, gap=2, paper=(255, 255, 255))
    Image.fromarray(grid).save(path.with_name(f"{stem}-pictures.png"), optimize=True)
    plot(arms, path.with_name(f"{stem}-curves.png"))


def verdicts(arms: dict) -> list[tuple[str, str]]:
    """Each explanation, and whether these runs support or refute it, by rules that know no result."""
    report, _, sane, _, noisy = arms.values()
    data, free, forced = (sane["draws"][draw] for draw in ("data", "sampled", "forward, drawn"))
    codes, half = data["distinct"], COLLAPSED * data["distinct"]
    greedy, control = sane["draws"]["greedy"], report["draws"]["greedy"]
    robust, first = noisy["draws"]["greedy"], sane["distinct"][0][1]
    wild = [spread(arm["loss"]) for arm in arms.values()]
    final = [arm["nats"][-1][1] for arm in arms.values()]

    def say(truth, words):
        return f"{'Supported' if truth else 'Refuted'} here. {words}"

    return [
        (
            "The loss is unstable because the batch is small.",
            say(
                wild[3] > 1.3 * wild[2],
                f"At one rate the loss wanders by {wild[3]:.3f} nats at batch 24 and by {wild[2]:.3f} at 64"
                " (root mean square about its moving mean; averaging alone would give 1.63 times). The report's"
                f" schedule: {wild[0]:.3f}; at the scaled rate {wild[1]:.3f}.",
            ),
        ),
        (
            "The loss falls slowly because of the learning rate.",
            say(
                final[1] > final[2] + 0.1,
                f"After as many pictures the report's schedule is at {final[0]:.2f} nats a token with 3e-3 and"
                f" at {final[1]:.2f} with what that rate is at width 768; the sane one at {final[2]:.2f}, and at"
                f" {final[3]:.2f} with batch 24.",
            ),
        ),
        (
            "More training is needed.",
            say(
                greedy["distinct"] > first + 0.1 * codes,
                f"The sane arm's greedy pictures had {first:.1f} distinct codes at the first look and"
                f" {greedy['distinct']:.1f} at the end; the data have {codes:.1f}.",
            ),
        ),
        (
            "The model is not robust against errors in its own tokens.",
            say(
                abs(free["distinct"] - forced["distinct"]) > 0.1 * codes,
                f"At temperature 1 sane pictures have {free['distinct']:.1f} distinct codes where they run"
                f" free, {forced['distinct']:.1f} after true tokens, longest runs of {free['longest_run']:.1f} and"
                f" {forced['longest_run']:.1f}. Code noise in training: greedy pictures faithful in"
                f" {robust['faithful']:.2f} ({greedy['faithful']:.2f} without), of {robust['distinct']:.1f}"
                f" distinct codes ({greedy['distinct']:.1f} without).",
            ),
        ),
        ("BERT and GPT-2 had learned language.", "Untested here: no released weights could be had."),
        ("There was too little data.", "Untested here: every arm read the same pictures."),
        (
            "(Ours.) It is greedy search: the likeliest token is the ground's, whatever was learned.",
            say(
                greedy["distinct"] < 0.9 * free["distinct"],
                f"The sane weights give {greedy['distinct']:.1f} distinct codes greedily and {free['distinct']:.1f}"
                f" at temperature 1, longest runs of {greedy['longest_run']:.1f} and {free['longest_run']:.1f};"
                f" faithful {greedy['faithful']:.2f} and {free['faithful']:.2f}.",
            ),
        ),
        (
            "(The control.) The report's recipe collapses.",
            say(
                control["distinct"] < half and greedy["distinct"] >= half,
                f"Collapsed: fewer than {half:.1f} distinct codes, half the data's, where the sane recipe has more."
                + "".join(f" {name}: {arm['draws']['greedy']['distinct']:.1f}." for name, arm in arms.items()),
            ),
        ),
    ]


def spread(loss: list) -> float:
    """Root mean square of a loss about its moving mean, over the second half of training."""
    values = np.array([value for _, value in loss])
    kernel = np.ones(9) / 9
    rest = (values[4:-4] - np.convolve(values, kernel, "valid"))[len(values) // 2 :]
    return float(np.sqrt(np.mean(rest**2)))


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
