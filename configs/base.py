"""Fields that every experiment has: those of the loop, those of each data set, those of all that sample tokens."""

import ml_collections


def base() -> ml_collections.ConfigDict:
    """Defaults of the loop. Each experiment adds `name`, `task`, `model_name`, `model`, `data`, `loss`.

    Of `model`, `sampling`, `loss` and `optim` it lists what differs from the defaults of the model, the sampler,
    the loss and the optimizer; sizes that follow from data, parents or released weights are filled in.
    """
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.steps = 1000  # optimizer steps
    config.batch_size = 64  # examples an optimizer step, over all devices
    config.accumulate = 1  # micro-batches that batch_size is cut into
    config.parallel = "jit"  # "jit" over a mesh of all devices, or "pmap"
    # Devices along each mesh axis; -1 takes what is left. `fsdp` splits parameters too, `tensor` as rules say.
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    # What factors of a transformer's products are rounded to in training: "float32", "bfloat16", or "auto", which
    # takes bfloat16 where it makes products faster by half. Sums, and all else, are float32 (see docs/devices.md).
    config.matmul = "float32"
    config.sharding_rules = ()  # (regular expression of a parameter's path, mesh axes of its last axes)

    # A run of the same kind to start from, in its sizes and with its words (docs/fine-tuning.md); "" starts anew.
    config.init_from = ""
    config.init_from_digest = ""  # of its weights; filled in at the start

    config.optim = ml_collections.ConfigDict()  # see `t2i_jax.loop.optimizer.Optim`
    config.skip_nonfinite = 0  # updates in a row that are skipped where not finite; 0 = stop at the first
    config.ema = 0.0  # decay of the averaged parameters that are sampled from; 0 = off

    config.log_every = 50
    config.eval_every = 500  # scores and picture grids on the validation split
    config.checkpoint_every = 500
    config.keep_checkpoints = 2
    config.wandb = ""  # project of Weights & Biases that the run is logged to as well; "" = none
    config.codebook_reset_every = 0  # steps between two restarts of dead codes; 0 = none

    # By name: the `config` and the folder, `run`, of what it builds on; "" is the copy in its own folder.
    config.parents = ml_collections.ConfigDict()
    config.model = ml_collections.ConfigDict()
    config.loss = ml_collections.ConfigDict()
    config.sampling = ml_collections.ConfigDict()  # empty for a tokenizer: it draws nothing
    return config


def digits() -> ml_collections.ConfigDict:
    """The embedded data: captioned handwritten digits, 32 x 32 pixels."""
    data = ml_collections.ConfigDict()
    data.name = "captioned_digits"
    data.source = ""  # a file of one's own that opens the set (see `t2i_jax.data.sources`); "" finds it by its name
    data.data_dir = "data"  # where prepared TFDS sets lie, relative to the working directory
    data.train = "train"  # TFDS splits; parts of one as TFDS writes them: "train[:55000]"
    data.validation = "validation"
    data.corrupt = "skip"  # pictures that cannot be read are skipped and named; "refuse" stops instead
    # Of its pictures: H = W, or (H, W); flags give the latter as 48,64.
    data.image_size = ml_collections.FieldReference(32, field_type=object)
    data.channels = 3
    return data


def photos() -> ml_collections.ConfigDict:
    """Crops of a dozen photographs that lie inside installed packages (extra `photos`), 64 x 64 pixels."""
    data = digits()
    data.name = "captioned_photos"
    data.image_size = 64
    return data


def mnist() -> ml_collections.ConfigDict:
    """MNIST, 28 x 28 pixels, one channel; the caption is the digit. Its files: `t2i_jax/data/sources/mnist.py`."""
    data = digits()
    data.name = "mnist"
    data.train, data.validation = "train[:55000]", "train[55000:]"
    data.image_size = 28
    data.channels = 1
    return data


def fashion() -> ml_collections.ConfigDict:
    """Fashion-MNIST: garments, shoes and bags in MNIST's format, "an ankle boot" their captions."""
    data = mnist()
    data.name = "fashion_mnist"
    return data


def cifar10() -> ml_collections.ConfigDict:
    """CIFAR10, 32 x 32 pixels; the caption is the class. Its files: `t2i_jax/data/sources/cifar10.py`."""
    data = digits()
    data.name = "cifar10"
    data.train, data.validation = "train[:45000]", "train[45000:]"
    return data


def coco() -> ml_collections.ConfigDict:
    """COCO captions 2017, 256 x 256 pixels, five captions a picture; put its files into `data/downloads/manual`."""
    data = digits()
    data.name = "coco_captions_2017"
    data.image_size = 256
    return data


def folder() -> ml_collections.ConfigDict:
    """Your own pictures with captions, prepared at 64 x 64 pixels, or others; see docs/own-pictures.md."""
    data = digits()
    data.name = "folder"
    data.dir = ""  # the folder, or a .tar or .parquet file
    data.image_size = 64
    data.validation_share = 0.1  # of pictures that are held out; 0 trains on all
    data.background = "white"  # under what is transparent
    data.crops = 0  # random squares of each training picture beside its central one
    data.crop_scale = (0.5, 1.0)  # their least and largest side, as shares of the picture's shorter side
    data.flip = False  # training pictures mirrored too; not where captions say left and right
    return data


def emoji() -> ml_collections.ConfigDict:
    """The folder that `examples/emoji/make.py` makes: 7,228 emoji in two designs, 32 x 32 pixels."""
    data = folder()
    data.dir = "data/emoji/train"
    data.image_size = 32
    data.validation_share = 0.03  # few: what is held out by rule is not in this folder
    return data


def judged(config) -> None:
    """Set what a VQ-VAE may be trained by beside the error of pixels; nothing of it is on."""
    # A folder that `t2i convert lpips` made: LPIPS is a score, and a part of the loss if `loss.perceptual` is set.
    config.lpips_weights = ""
    config.discriminator = {}  # see t2i_jax/models/patchgan.py; trained where `loss.adversarial` is above 0
    config.discriminator_optim = {"b1": 0.5, "b2": 0.9, "schedule": "constant"}


def smoke(config) -> None:
    """Make a small experiment of a config: two steps on the tiny set, everything at each of them."""
    config.data.name = "captioned_digits/tiny"
    config.steps, config.batch_size, config.optim.warmup = 2, 8, 1
    config.log_every = config.eval_every = config.checkpoint_every = 1


def on_tokens(config, tokenizer, data) -> None:
    """Set what experiments share that learn to draw tokens.

    Args:
      config: of the experiment.
      tokenizer: config of the tokenizer's own experiment.
      data: `digits()` or another.
    """
    # Trained first, in the folder `run`, where there is no finished run.
    config.parents.tokenizer = {"config": tokenizer, "run": f"runs/{tokenizer.name}"}
    config.data = data
    config.data.text_len = 12  # S, word pieces a caption, [CLS] and [SEP] included
    config.data.caption_dropout = 0.1  # share of captions replaced by the null caption
    # One value, two places: overriding either field overrides both.
    for field in tokenizer.data:
        tokenizer.data[field] = data.get_ref(field)
    config.model.text_vocab_size = 64  # V, at most: words of the captions, or pieces of words where these are more
    config.shown_captions = (  # drawn at every evaluation; never among the prompts a run is scored by
        "a green five",
        "a white two",
        "a cyan nine and a red three",
        "a blue eight above an orange six",
        "a purple one left of a green zero",
        "two red sevens",
        "three blue fours",
        "four white twos",
    )
    config.init_from_tokenizer = True  # embeddings of image tokens, and the head, start as projections of the codes
    config.optim.lr = 2e-3
    config.optim.b2 = 0.98
    config.eval_every = 1000
    config.judge_every = 0  # steps between two ratings of its pictures by the data set's judge; 0 = none
    config.checkpoint_every = 250
    config.sampling = {  # a file of t2i_jax/sampling, and the settings that differ from its defaults
        "name": "autoregressive",
        "temperature": 0.3,
        "min_p": 0.05,
        "unguided_tokens": 8,
        "guidance_scale": 1.5,
    }
