"""Decoder-only translator, as DALL·E: captions and the tokens of a grid VQ-VAE in one sequence.

python train.py --config=configs/dalle.py

digits: not measured over its 2,000 steps; 250 steps by Muon, with the attention masks from before the rebuild of
2026-11-27, are in docs/decoder-only.md. It has as many parameters as configs/translator.py:grid, the
encoder-decoder on the same tokens (2,046,880 and 2,044,000); data, caption dropout, learning rate and sampling are
equal too, and nothing was tuned for either. benchmarks/decoder_only.py compares the two at equal arithmetic.
"""

from configs import base, vqvae


def dalle(tokenizer):
    """What the variants share."""
    config = base.base()
    config.task = "dalle"
    config.model_name = "dalle"
    config.model = {
        "width": 160,
        "heads": 5,
        "mlp_width": 640,
        "attention": ("row", "column", "row", "row", "row", "conv"),  # one kind a layer, as the paper orders them
        "kernel": 5,  # of "conv"; theirs, 11 on 32 x 32 places, would be most of 8 x 8
        "dropout": 0.0,
    }
    base.on_tokens(config, tokenizer, base.digits())
    config.data.code_noise = 0.0  # share of decoder inputs replaced by another picture's, against exposure bias
    config.sampling.unguided_tokens = 0
    config.loss = {"text_weight": 1 / 8}  # share of the text in the loss
    config.steps = 2000
    return config


def digits():
    return dalle(vqvae.get_config("digits"))


def smoke():
    config = dalle(vqvae.get_config("smoke"))
    config.model.update({"width": 32, "heads": 2, "mlp_width": 64, "attention": ("column", "conv"), "kernel": 3})
    base.smoke(config)
    return config


def get_config(variant: str = "digits"):
    config = globals()[variant]()
    config.name = f"dalle-{variant}"
    return config
