"""A state dict of InceptionV3 with pytorch-fid's names, of random numbers."""

import numpy as np

# Name of a unit: channels in, channels out, height, width of its kernel.
UNITS = {
    "Conv2d_1a_3x3": (3, 32, 3, 3),
    "Conv2d_2a_3x3": (32, 32, 3, 3),
    "Conv2d_2b_3x3": (32, 64, 3, 3),
    "Conv2d_3b_1x1": (64, 80, 1, 1),
    "Conv2d_4a_3x3": (80, 192, 3, 3),
}
for _name, _into, _pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
    UNITS |= {
        f"Mixed_{_name}.branch1x1": (_into, 64, 1, 1),
        f"Mixed_{_name}.branch5x5_1": (_into, 48, 1, 1),
        f"Mixed_{_name}.branch5x5_2": (48, 64, 5, 5),
        f"Mixed_{_name}.branch3x3dbl_1": (_into, 64, 1, 1),
        f"Mixed_{_name}.branch3x3dbl_2": (64, 96, 3, 3),
        f"Mixed_{_name}.branch3x3dbl_3": (96, 96, 3, 3),
        f"Mixed_{_name}.branch_pool": (_into, _pool, 1, 1),
    }
UNITS |= {
    "Mixed_6a.branch3x3": (288, 384, 3, 3),
    "Mixed_6a.branch3x3dbl_1": (288, 64, 1, 1),
    "Mixed_6a.branch3x3dbl_2": (64, 96, 3, 3),
    "Mixed_6a.branch3x3dbl_3": (96, 96, 3, 3),
}
for _name, _c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
    UNITS |= {
        f"Mixed_{_name}.branch1x1": (768, 192, 1, 1),
        f"Mixed_{_name}.branch7x7_1": (768, _c, 1, 1),
        f"Mixed_{_name}.branch7x7_2": (_c, _c, 1, 7),
        f"Mixed_{_name}.branch7x7_3": (_c, 192, 7, 1),
        f"Mixed_{_name}.branch7x7dbl_1": (768, _c, 1, 1),
        f"Mixed_{_name}.branch7x7dbl_2": (_c, _c, 7, 1),
        f"Mixed_{_name}.branch7x7dbl_3": (_c, _c, 1, 7),
        f"Mixed_{_name}.branch7x7dbl_4": (_c, _c, 7, 1),
        f"Mixed_{_name}.branch7x7dbl_5": (_c, 192, 1, 7),
        f"Mixed_{_name}.branch_pool": (768, 192, 1, 1),
    }
UNITS |= {
    "Mixed_7a.branch3x3_1": (768, 192, 1, 1),
    "Mixed_7a.branch3x3_2": (192, 320, 3, 3),
    "Mixed_7a.branch7x7x3_1": (768, 192, 1, 1),
    "Mixed_7a.branch7x7x3_2": (192, 192, 1, 7),
    "Mixed_7a.branch7x7x3_3": (192, 192, 7, 1),
    "Mixed_7a.branch7x7x3_4": (192, 192, 3, 3),
}
for _name, _into in (("7b", 1280), ("7c", 2048)):
    UNITS |= {
        f"Mixed_{_name}.branch1x1": (_into, 320, 1, 1),
        f"Mixed_{_name}.branch3x3_1": (_into, 384, 1, 1),
        f"Mixed_{_name}.branch3x3_2a": (384, 384, 1, 3),
        f"Mixed_{_name}.branch3x3_2b": (384, 384, 3, 1),
        f"Mixed_{_name}.branch3x3dbl_1": (_into, 448, 1, 1),
        f"Mixed_{_name}.branch3x3dbl_2": (448, 384, 3, 3),
        f"Mixed_{_name}.branch3x3dbl_3a": (384, 384, 1, 3),
        f"Mixed_{_name}.branch3x3dbl_3b": (384, 384, 3, 1),
        f"Mixed_{_name}.branch_pool": (_into, 192, 1, 1),
    }


def tensors(seed=0):
    """A state dict of random numbers."""
    rng, state = np.random.default_rng(seed), {}
    for name, (into, out, height, width) in UNITS.items():
        deviation = (2 / (into * height * width)) ** 0.5
        state[f"{name}.conv.weight"] = rng.normal(0, deviation, (out, into, height, width))
        state[f"{name}.bn.weight"] = rng.uniform(0.8, 1.2, out)
        state[f"{name}.bn.bias"] = rng.normal(0, 0.1, out)
        state[f"{name}.bn.running_mean"] = rng.normal(0, 0.1, out)
        state[f"{name}.bn.running_var"] = rng.uniform(0.5, 1.5, out)
    state["fc.weight"], state["fc.bias"] = rng.normal(0, 0.05, (1008, 2048)), rng.normal(size=1008)
    return {name: x.astype(np.float32) for name, x in state.items()}
