"""Decoder-only translator, as DALL·E: captions and the tokens of a grid VQ-VAE in one sequence.

python train.py --config=configs/dalle.py

digits: not measured over its 2,000 steps; 250 steps by Muon are in docs/decoder-only.md. It has as many
parameters as configs/translator.py:grid, the encoder-decoder on the same tokens (2,046,880 and 2,044,000);
data, caption dropout, learning rate and sampling are equal too, and nothing was tuned for either.
benchmarks/decoder_only.py compares the two at equal arithmetic.
"""

from configs import base, vqvae

VARIANTS = ("digits", "smoke")


def get_config(variant: str = "digits"):
    config = base.base()
    config.name = f"dalle-{variant}"
    config.task = "dalle"
    config.model_name = "dalle"
    config.model = {
        "codebook_size": 512,
        "num_tokens": 64,
        "grid": (8, 8),
        "text_vocab_size": 64,
        "text_len": 12,
        "width": 160,
        "heads": 5,
        "mlp_width": 640,
        "attention": ("row", "column", "row", "row", "row", "conv"),  # one kind a layer, as the paper orders them
        "kernel": 5,  # of "conv"; theirs, 11 on 32 x 32 places, would be most of 8 x 8
        "dropout": 0.0,
        "dtype": "float32",
    }
    base.on_tokens(config, vqvae.get_config(variant), base.digits())
    config.data.code_noise = 0.0  # share of decoder inputs replaced by random codes, against exposure bias
    config.sampling.unguided_tokens = 0
    config.loss = {"text_weight": 1 / 8}  # share of the text in the loss
    config.steps = 2000
    if variant == "smoke":
        config.data.name = "captioned_digits/tiny"
        tiny = {"width": 32, "heads": 2, "mlp_width": 64, "attention": ("column", "conv"), "kernel": 3}
        config.model.update({"codebook_size": 64, **tiny})
        config.steps, config.batch_size, config.optim.warmup = 2, 8, 1
        config.log_every = config.eval_every = config.checkpoint_every = 1
    return config
