"""How `fuzz.py` changes JSON: values, names and branches, not only bytes."""

import copy
import json
import random

ODD = [None, True, 0, -1, 3, 2**31, 2**64, 10**30, 0.5, -1e308, float("nan"), float("inf"), "", "a", "\0", "\ud800"]
ODD += ["../a", "/", "\x1b[2J\n", "a" * 300, "9" * 5000, [], {}, [[]], {"a": {}}, "a.b", "<|endoftext|>", "x/../.."]


def mutated(content: bytes, most: int, seed: int) -> bytes:
    """JSON with some values, names or branches changed; one time in five, and of no JSON, bytes are."""
    import atheris

    rng = random.Random(seed)

    def odd():  # a copy, as lists and dicts among them are changed, too
        return copy.deepcopy(rng.choice(ODD))

    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict | list) or rng.random() < 0.2:
        return atheris.Mutate(content, most)
    for _ in range(rng.choice([1, 1, 2, 4])):
        spots = [(tree, key) for key in _keys(tree)]
        for branch, key in spots:  # grows as it goes
            spots += [(branch[key], inner) for inner in _keys(branch[key])]
        if not spots:
            break
        branch, key = rng.choice(spots)
        other, name = rng.choice(spots)
        kind = rng.randrange(6)
        if kind < 3:
            branch[key] = odd() if kind else json.loads(json.dumps(other[name]))
        elif kind == 3:
            del branch[key]
        elif isinstance(branch, list):
            branch.insert(key, odd())
        elif kind == 4:
            branch[str(odd())] = branch.pop(key)
        elif isinstance(branch[key], str):
            raw = atheris.Mutate(branch[key].encode("utf-8", "surrogatepass"), 64)
            branch[key] = raw.decode("utf-8", "replace")
        elif isinstance(branch[key], int):
            branch[key] += rng.choice([-1, 1, 2**20])
    return json.dumps(tree).encode()[:most]


def _keys(branch) -> list:
    if isinstance(branch, list):
        return list(range(len(branch)))
    return list(branch) if isinstance(branch, dict) else []
