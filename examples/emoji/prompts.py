"""Writes the prompts that a run is judged by: names trained on, names held out, words never seen.

    python examples/emoji/prompts.py --data data/emoji --out prompts
    t2i sample --run RUN --prompts-file prompts/trained.txt --out samples/trained

The words never seen are those of `unseen.json`, with the emoji that each prompt asks for; they were chosen before
anything was trained.
"""

import argparse
import json
import sys
from pathlib import Path

import make
import numpy as np

from t2i_jax.errors import UserError

TRAINED = 300  # names that are drawn of all that were trained on
UNSEEN = Path(__file__).with_name("unseen.json")


def lists(index: list[dict], unseen: dict[str, list[str]], seed: int = 0) -> dict[str, list[str]]:
    """Prompts by the name of their file.

    Args:
      index: what `make.py` wrote of each picture.
      unseen: emoji asked for, by prompt.
      seed: of the draw of names that were trained on.

    Raises:
      UserError: a prompt of `unseen` has no word that training did not see.
    """
    trained = [entry for entry in index if not entry["held_out"]]
    names = sorted({entry["label"] for entry in trained})
    seen = set().union(*(make.words(caption) for entry in trained for caption in entry["captions"]))
    known = [prompt for prompt in unseen if make.words(prompt) <= seen]
    if known:
        raise UserError(f"{', '.join(known)}: all their words were trained on; choose others for {UNSEEN.name}")
    chosen = np.random.default_rng(seed).permutation(len(names))[:TRAINED]
    found = {"trained": [names[i] for i in sorted(chosen)]}
    for rule in sorted({entry["held_out"] for entry in index} - {""}):
        name = rule.replace(" ", "_")
        found[name] = sorted({entry["label"] for entry in index if entry["held_out"] == rule})
    return found | {"unseen": list(unseen)}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="what make.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the lists")
    args = parser.parse_args()
    try:
        found = lists(make.read_index(args.data), json.loads(UNSEEN.read_text(encoding="utf-8")))
    except UserError as error:
        sys.exit(f"{error}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, prompts in found.items():
        (args.out / f"{name}.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
        print(f"{args.out / name}.txt: {len(prompts)} prompts")


if __name__ == "__main__":
    main()
