r"""PixelCNN prior over a VQ-VAE's tokens: captions, names of classes or nothing -> tokens -> images.

    XLA_FLAGS="--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false" \
        python train.py --config=configs/prior.py

The tokens of `patch_vqvae` stand in three grids: 4 hues and 4 gains (2 x 2 blocks), 16 shapes (4 x 4 patches). The
prior has them in rows of four, hues first: coarse tokens above fine ones.

digits, 2026-11-28 (AMD EPYC with AVX-512, 2 cores): 1.98 nats a token, overall 0.308, held out 0.329, 3.8 minutes.
Measured on 2 CPU cores (AMD EPYC, 2026-11-24, other work beside it), so before the rebuild of 2026-11-27, by `t2i
evaluate` (seed 0): 1.90 nats a token, 2.75 bits (bigram baseline 3.89 nats, unigram 5.53); overall 0.384,
held-out combinations 0.418, best category 0.950 (counting), worst 0.095 (position); reconstructions 0.966. Uniform
ids 0.000: an id of another codebook stands for black, but ids that are uniform over each token's own codebook score
0.000 as well. 1,000 steps took 8 minutes, start and last evaluation another 2. Number and colours are mostly right,
digits often not: docs/prior-digits.png. Positions are off the data's (total variation 0.25; the limit is 0.15).
With unguided_tokens 0 the scores are 0.426 and 0.446, but positions (0.49) and orders (0.28) are further off.

mnist, cifar10: not measured. fashion: a classifier agrees with the caption of 95% of 300 pictures
(docs/fashion.md).
"""

from configs import base, patch_vqvae, vqvae


def prior(tokenizer, data):
    """What the variants share."""
    config = base.base()
    config.task = "prior"
    config.model_name = "pixelcnn"
    config.model.encoder = {"width": 128, "heads": 4, "mlp_width": 512, "layers": 2, "dropout": 0.0}
    base.on_tokens(config, tokenizer, data)
    config.steps = 1000
    return config


def digits():
    return prior(patch_vqvae.get_config("digits"), base.digits())


def classes(tokenizer, data, names):
    """Pictures with a class each, its name their caption."""
    config = prior(tokenizer, data)
    config.model.kernel = 5
    config.shown_captions = names
    config.steps, config.eval_every, config.checkpoint_every = 20_000, 2000, 1000
    config.optim.lr = 1e-3
    config.sampling.update({"temperature": 1.0, "min_p": 0.0, "unguided_tokens": 0, "guidance_scale": 1.0})
    return config


def mnist():
    return classes(vqvae.get_config("mnist"), base.mnist(), tuple("0123456789"))


def fashion():
    """Sized for two cores."""
    names = ("a t-shirt", "trousers", "a pullover", "a dress", "a coat")
    names += ("a sandal", "a shirt", "a sneaker", "a bag", "an ankle boot")
    config = classes(vqvae.get_config("fashion"), base.fashion(), names)
    config.model.update({"width": 64, "kernel": 3, "layers": 6})
    config.model.encoder.update({"width": 64, "mlp_width": 128, "layers": 1})
    config.steps, config.eval_every, config.checkpoint_every = 1000, 1000, 100
    config.optim.lr, config.optim.muon = 2e-3, 2.0
    config.sampling.update({"temperature": 0.8, "guidance_scale": 2.0})
    return config


def cifar10():
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return classes(vqvae.get_config("cifar10"), base.cifar10(), names)


def smoke():
    config = prior(patch_vqvae.get_config("smoke"), base.digits())
    config.model.update({"width": 32, "encoder": {"width": 32, "layers": 1, "mlp_width": 64}})
    base.smoke(config)
    return config


def get_config(variant: str = "digits"):
    config = globals()[variant]()
    config.name = f"prior-{variant}"
    return config
