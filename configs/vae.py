"""Autoencoders, plain and variational: images <-> one continuous vector each.

    python train.py --config=configs/vae.py
    t2i sample --run runs/vae-digits -n 16

digits, measured on 2 CPU cores (AMD EPYC, no accelerator, 2026-11-24), one seed, on the whole validation split:
PSNR 27.9 dB, ELBO 3770 nats a picture (Gaussian pixels, sigma 0.1, a density), of which KL 146; all 64
units active, each with 2.0 to 2.7 nats. 5 min 14 s, three evaluations included, while other work ran on the
machine. Reconstructions read as digits; new pictures from N(0, I) are strokes in one place or another, not digits
(docs/vae-digits.png).

mnist, mnist_ae, cifar10: not measured. fashion: 19.3 dB, fashion_ae: 21.1 dB (docs/fashion.md).
Nothing else was measured again since the rebuild of 2026-11-27.
"""

from configs import base


def digits():
    config = base.base()
    config.task = "autoencode"
    config.model_name = "vae"
    config.data = base.digits()
    config.model = {"latent": 64, "backbone": {"depth": 50}}  # of a ResNet: --config.model.encoder=resnet
    config.backbone_weights = "microsoft/resnet-50"  # a name on the hub, or a folder with model.safetensors
    config.loss = {
        "likelihood": "gaussian",  # or "bernoulli"
        "sigma": 0.1,  # fixed standard deviation of a Gaussian pixel
        "beta": 1.0,  # weight of the KL term; of no effect in a plain autoencoder, which has none
        "kl_warmup": 500,  # steps over which it grows from 0
    }
    config.steps = 1500
    config.optim.lr = 2e-3
    return config


def mnist():
    config = digits()
    config.data = base.mnist()
    config.loss.likelihood = "bernoulli"
    config.model.latent = 20
    config.steps = 5000
    return config


def mnist_ae():
    config = mnist()
    config.model.variational = False
    return config


def fashion():
    """Sized for two cores."""
    config = mnist()
    config.data = base.fashion()
    config.model.latent = 32
    config.steps, config.eval_every = 2000, 2000
    return config


def fashion_ae():
    config = fashion()
    config.model.variational = False
    return config


def cifar10():
    config = digits()
    config.data = base.cifar10()
    config.model.update({"latent": 128, "width": 64})
    config.loss.kl_warmup = 2000
    config.steps = 20_000
    return config


def cifar10_resnet():
    config = cifar10()
    config.model.update({"encoder": "resnet", "pretrained": True})
    return config


def smoke():
    config = digits()
    config.model.update({"latent": 8, "width": 4})
    config.loss.kl_warmup = 1
    base.smoke(config)
    return config


def get_config(variant: str = "digits"):
    config = globals()[variant]()
    config.name = f"vae-{variant}"
    return config
