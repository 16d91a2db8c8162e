"""InceptionV3 in torch's functions, and a state dict of random numbers with pytorch-fid's names."""

import numpy as np

# Name of a unit: channels in, channels out, height, width of its kernel. Stride 2 and paddings stand in `outputs`.
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


def outputs(state, images):
    """Four outputs and logits without bias, of pixels [B, H, W, 3] in [0, 1]."""
    import torch
    from torch.nn import functional as F

    state = {name: torch.tensor(x) for name, x in state.items()}

    def unit(x, name, stride=1, padding=None):
        kernel = state[f"{name}.conv.weight"]
        same = (0, 0) if stride == 2 else tuple(side // 2 for side in kernel.shape[2:])
        x = F.conv2d(x, kernel, stride=stride, padding=same if padding is None else padding)
        norm = [state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *norm, training=False, eps=0.001))

    def several(x, block, stem, count, last=1):
        for i in range(1, count + 1):
            x = unit(x, f"{block}.{stem}_{i}", last if i == count else 1)
        return x

    def averaged(x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def halved(x):
        return F.max_pool2d(x, 3, 2)

    x = torch.tensor(images).permute(0, 3, 1, 2)
    x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) * 2 - 1
    x = unit(unit(unit(x, "Conv2d_1a_3x3", 2), "Conv2d_2a_3x3", padding=0), "Conv2d_2b_3x3")
    found = [halved(x)]
    found.append(halved(unit(unit(found[0], "Conv2d_3b_1x1"), "Conv2d_4a_3x3", padding=0)))
    x = found[1]
    for n in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        five, three = several(x, n, "branch5x5", 2), several(x, n, "branch3x3dbl", 3)
        x = torch.cat([unit(x, f"{n}.branch1x1"), five, three, unit(averaged(x), f"{n}.branch_pool")], 1)
    three, double = unit(x, "Mixed_6a.branch3x3", 2), several(x, "Mixed_6a", "branch3x3dbl", 3, last=2)
    x = torch.cat([three, double, halved(x)], 1)
    for n in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        seven, double = several(x, n, "branch7x7", 3), several(x, n, "branch7x7dbl", 5)
        x = torch.cat([unit(x, f"{n}.branch1x1"), seven, double, unit(averaged(x), f"{n}.branch_pool")], 1)
    found.append(x)
    three, seven = several(x, "Mixed_7a", "branch3x3", 2, last=2), several(x, "Mixed_7a", "branch7x7x3", 4, last=2)
    x = torch.cat([three, seven, halved(x)], 1)
    for n, pool in (("Mixed_7b", averaged), ("Mixed_7c", lambda x: F.max_pool2d(x, 3, 1, 1))):
        three, double = unit(x, f"{n}.branch3x3_1"), several(x, n, "branch3x3dbl", 2)
        parts = [unit(three, f"{n}.branch3x3_2{fork}") for fork in "ab"]
        parts += [unit(double, f"{n}.branch3x3dbl_3{fork}") for fork in "ab"]
        x = torch.cat([unit(x, f"{n}.branch1x1"), *parts, unit(pool(x), f"{n}.branch_pool")], 1)
    found.append(x)
    means = [x.mean((2, 3)) for x in found]
    return [x.numpy() for x in means], (means[-1] @ state["fc.weight"].T).numpy()
