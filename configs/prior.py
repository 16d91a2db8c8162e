r"""PixelCNN prior over a VQ-VAE's tokens: captions, names of classes or nothing -> tokens -> pictures.

    XLA_FLAGS="--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false" \
        python train.py --config=configs/prior.py

The digits' tokens are no picture: 4 hues and 4 gains (2 x 2 blocks) and 16 shapes (4 x 4 patches). Their
grid is those three in rows of four, hues first: what is coarse lies above what is fine.

digits, measured on 2 CPU cores (AMD EPYC, 2026-11-24, other work beside it), by `t2i evaluate` (seed 0): 1.90 nats
a token, 2.75 bits (bigram baseline 3.89 nats, unigram 5.53); overall 0.384, held-out combinations 0.418, best
category 0.950 (counting), worst 0.095 (position); reconstructions 0.966. Uniform ids 0.000: an id of another
codebook stands for black, but ids that are uniform over each token's own codebook score 0.000 as well. 1,000 steps
took 8 minutes, start and last evaluation another 2. Number and colours are mostly right, digits often not:
docs/prior-digits.png. Places are off the data's (total variation 0.25, should be 0.15 at most). With
unguided_tokens 0 the scores are 0.426 and 0.446, but places (0.49) and orders (0.28) are further off.
"""

from configs import base, patch_vqvae, vqvae

VARIANTS = ("digits", "mnist", "cifar10", "smoke")

CLASSES = {  # their captions
    "mnist": tuple("0123456789"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}


def get_config(variant: str = "digits"):
    config = base.base()
    config.name = f"prior-{variant}"
    config.task = "prior"
    config.model_name = "pixelcnn"
    config.model = {
        "codebook_size": 2048,
        "num_tokens": 24,
        "grid": (6, 4),
        "text_vocab_size": 64,
        "text_len": 12,
        "conditional": True,
        "width": 128,
        "heads": 4,
        "layers": 5,
        "kernel": 3,
        "dtype": "float32",
        "encoder": {
            "width": 128,
            "heads": 4,
            "mlp_width": 512,
            "layers": 2,
            "max_positions": 12,
            "dropout": 0.0,
        },
    }
    tokenizer = (vqvae if variant in CLASSES else patch_vqvae).get_config(variant)
    data = {"mnist": base.mnist, "cifar10": base.cifar10}.get(variant, base.digits)()
    base.on_tokens(config, tokenizer, data)
    config.steps = 1000
    if variant in CLASSES:  # neither was trained yet
        side = 7 if variant == "mnist" else 8
        config.model.update({"codebook_size": 512, "num_tokens": side * side, "grid": (side, side), "kernel": 5})
        config.shown_captions = CLASSES[variant]
        config.steps, config.eval_every, config.checkpoint_every = 20_000, 2000, 1000
        config.optim.lr = 1e-3
        config.sampling.update({"temperature": 1.0, "min_p": 0.0, "unguided_tokens": 0, "guidance_scale": 1.0})
    if variant == "smoke":
        config.data.name = "captioned_digits/tiny"
        config.model.update({"codebook_size": 64, "width": 32})
        config.model.encoder.update({"width": 32, "layers": 1, "mlp_width": 64})
        config.steps, config.batch_size, config.optim.warmup = 2, 8, 1
        config.log_every = config.eval_every = config.checkpoint_every = 1
    return config
