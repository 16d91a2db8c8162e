"""Autoencoders, plain and variational: pictures <-> one continuous vector each.

    python train.py --config=configs/vae.py
    t2i sample --run runs/vae-digits -n 16

digits, measured on 2 CPU cores (AMD EPYC, no accelerator, 2026-11-24), one seed, on the whole validation split:
PSNR 27.9 dB, ELBO 3770 nats a picture (Gaussian pixels of deviation 0.1, a density), of which KL 146; all 64
units active, each with 2.0 to 2.7 nats. 5 min 14 s, three evaluations included, while other work ran on the
machine. Reconstructions read as digits; new pictures from N(0, I) are strokes in one place or another, not digits
(docs/vae-digits.png).

mnist, mnist_ae, cifar10: not measured.
"""

from configs import base

VARIANTS = ("digits", "mnist", "mnist_ae", "cifar10", "cifar10_resnet", "smoke")


def get_config(variant: str = "digits"):
    config = base.base()
    config.name = f"vae-{variant}"
    config.task = "autoencode"
    config.model_name = "vae"
    sets = {"mnist": base.mnist, "mnist_ae": base.mnist, "cifar10": base.cifar10, "cifar10_resnet": base.cifar10}
    config.data = sets.get(variant, base.digits)()
    config.model = {
        "image_size": config.data.get_ref("image_size"),
        "channels": config.data.get_ref("channels"),
        "latent": 64,
        "width": 32,
        "variational": True,
        "encoder": "conv",  # or "resnet"
        "backbone": {"depth": 50, "stage": 4, "frozen": True},  # of a ResNet
        "pretrained": variant == "cifar10_resnet",  # False trains a ResNet from scratch
    }
    config.backbone_weights = "microsoft/resnet-50"  # a name on the hub, or a folder with model.safetensors
    config.loss = {
        "likelihood": "gaussian",  # or "bernoulli"
        "sigma": 0.1,  # fixed deviation of a Gaussian pixel
        "beta": 1.0,  # weight of the KL term; of no effect in a plain autoencoder, which has none
        "kl_warmup": 500,  # steps over which it grows from 0
    }
    config.steps = 1500
    config.optim.lr = 2e-3
    if variant in ("mnist", "mnist_ae"):
        config.loss.likelihood = "bernoulli"
        config.model.latent = 20
        config.model.variational = variant == "mnist"
        config.steps = 5000
    if variant == "cifar10_resnet":
        config.model.encoder = "resnet"
    if variant in ("cifar10", "cifar10_resnet"):
        config.model.update({"latent": 128, "width": 64})
        config.steps = 20_000
        config.loss.kl_warmup = 2000
    if variant == "smoke":
        config.data.name = "captioned_digits/tiny"
        config.model.update({"latent": 8, "width": 4})
        config.steps, config.batch_size, config.optim.warmup, config.loss.kl_warmup = 2, 8, 1, 1
        config.log_every = config.eval_every = config.checkpoint_every = 1
    return config
