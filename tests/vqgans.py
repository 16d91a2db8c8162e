"""taming's VQGAN in torch, written from its paper's table and its tensors' names, with random weights."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch, the reference, comes with the extra `parity`")
nn, functional = torch.nn, torch.nn.functional


def conv(into, out, side, stride=1):
    return nn.Conv2d(into, out, side, stride, side // 2 if stride == 1 else 0)


class Block(nn.Module):
    def __init__(self, into, out, groups):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, into, 1e-6), conv(into, out, 3)
        self.norm2, self.conv2 = nn.GroupNorm(groups, out, 1e-6), conv(out, out, 3)
        if into != out:
            self.nin_shortcut = conv(into, out, 1)

    def forward(self, x):
        y = self.conv1(functional.silu(self.norm1(x)))
        y = self.conv2(functional.silu(self.norm2(y)))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, width, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.q, self.k, self.v, self.proj_out = (conv(width, width, 1) for _ in range(4))

    def forward(self, x):
        y = self.norm(x)
        q, k, v = (layer(y).flatten(2) for layer in (self.q, self.k, self.v))
        weights = torch.softmax(q.transpose(1, 2) @ k * q.shape[1] ** -0.5, dim=-1)
        return x + self.proj_out((v @ weights.transpose(1, 2)).reshape(x.shape))


class Resample(nn.Module):
    """Half the side, after a row and a column of zeros at the end; or twice the side, by repeating pixels."""

    def __init__(self, width, down):
        super().__init__()
        self.down, self.conv = down, conv(width, width, 3, 2 if down else 1)

    def forward(self, x):
        if self.down:
            return self.conv(functional.pad(x, (0, 1, 0, 1)))
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    def __init__(self, into, out, blocks, attends, groups, resample):
        super().__init__()
        self.block = nn.ModuleList([Block(out if i else into, out, groups) for i in range(blocks)])
        self.attn = nn.ModuleList([Attention(out, groups) for _ in range(blocks)] if attends else [])
        if resample:
            setattr(self, resample, Resample(out, resample == "downsample"))

    def forward(self, x):
        for i, block in enumerate(self.block):
            x = block(x)
            x = self.attn[i](x) if len(self.attn) else x
        for name in ("downsample", "upsample"):
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return x


class Middle(nn.Module):
    def __init__(self, width, groups):
        super().__init__()
        self.block_1, self.attn_1 = Block(width, width, groups), Attention(width, groups)
        self.block_2 = Block(width, width, groups)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Coder(nn.Module):
    """The encoder, or the decoder; `levels` are (channels in, channels out, blocks, attends, resample)."""

    def __init__(self, into, first, levels, out, groups, decoder):
        super().__init__()
        own = nn.ModuleList([Level(*level[:4], groups, level[4]) for level in levels])
        self.conv_in = conv(into, first, 3)
        # Levels have the number of their resolution, the pixels' 0, whatever the order that they run in.
        self.up, self.down = (own[::-1], None) if decoder else (None, own)
        self.mid = Middle(first if decoder else levels[-1][1], groups)
        last = levels[-1][1]
        self.norm_out, self.conv_out = nn.GroupNorm(groups, last, 1e-6), conv(last, out, 3)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down or ():
            x = level(x)
        x = self.mid(x)
        for level in (self.up or ())[::-1]:
            x = level(x)
        return self.conv_out(functional.silu(self.norm_out(x)))


class VQGAN(nn.Module):
    """`fields` are those of `models.vqgan.Model`."""

    def __init__(self, fields, seed=0):
        super().__init__()
        width, multipliers, blocks = fields["width"], fields["multipliers"], fields["blocks"]
        widths, groups, z = [width * m for m in multipliers], fields["groups"], fields["latent_width"]
        last = len(widths) - 1

        def levels(order, count, resample, without):
            inputs = [width, *widths[:-1]] if resample == "downsample" else [widths[-1], *widths[:0:-1]]
            return [
                (into, widths[i], count, i in fields["attention"], None if i == without else resample)
                for into, i in zip(inputs, order, strict=True)
            ]

        down = levels(range(last + 1), blocks, "downsample", last)
        up = levels(range(last, -1, -1), blocks + 1, "upsample", 0)
        self.encoder = Coder(fields["channels"], width, down, z, groups, False)
        self.decoder = Coder(z, widths[-1], up, fields["channels"], groups, True)
        self.quant_conv, self.post_quant_conv = (
            conv(z, fields["code_width"], 1),
            conv(fields["code_width"], z, 1),
        )
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(fields["codebook_size"], fields["code_width"])
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                scale = 1 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.3 * noise
                fan = parameter[0].numel() if parameter.ndim == 4 else 0
                parameter.copy_(noise * fan**-0.5 if fan else scale)

    def tokens(self, images):
        """Ids of pixels in [-1, 1], row by row."""
        z = self.quant_conv(self.encoder(images)).permute(0, 2, 3, 1)
        distances = torch.cdist(z.flatten(1, 2), self.quantize.embedding.weight[None].expand(len(z), -1, -1))
        return distances.argmin(-1)


def save(model, path):
    """As Lightning does, after a step of Adam on one layer."""
    adam = torch.optim.Adam(model.quant_conv.parameters())
    model.quant_conv.weight.sum().backward()
    adam.step()
    state = model.state_dict()
    state["loss.discriminator.main.0.weight"] = torch.ones(1)
    torch.save({"epoch": 1, "state_dict": state, "optimizer_states": [adam.state_dict()]}, path)


def to_torch(x):
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2).contiguous()


def from_torch(x):
    return x.detach().permute(0, 2, 3, 1).numpy()
