"""Fields that every experiment has."""

import ml_collections


def base() -> ml_collections.ConfigDict:
    """Defaults of the loop. Each experiment adds `name`, `task`, `model_name`, `model`, `data`, `loss`."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.steps = 1000  # optimizer steps
    config.batch_size = 64  # examples an optimizer step, over all devices
    config.accumulate = 1  # micro-batches that batch_size is cut into
    config.parallel = "jit"  # "jit" over a mesh of all devices, or "pmap"
    # Devices along each mesh axis; -1 takes what is left. `fsdp` splits parameters too, `tensor` as rules say.
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.sharding_rules = ()  # (regular expression of a parameter's path, mesh axes of its last axes)

    config.optim = ml_collections.ConfigDict()  # see `t2i_jax.loop.optimizer.Optim`
    config.optim.lr = 1e-3
    config.optim.warmup = 100  # updates from lr / warmup to lr
    config.optim.schedule = "cosine"  # after the warm-up, down to 0: "cosine", "linear"; or "constant"
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    config.optim.weight_decay = 0.0  # on matrices only
    config.optim.clip = 1.0  # global gradient norm; 0 = no clip
    config.optim.restarts = ()  # (step, rate): the schedule starts again there, from that rate
    config.optim.lr_multipliers = {}  # by part of the model; 0 freezes a part
    config.optim.muon = 0.0  # multiplier of lr for kernels, which Muon then trains; 0 = AdamW for all
    config.optim.muon_exclude = ("head", "output", "logits", "mu", "logvar", "to_codes", "patches")
    config.ema = 0.0  # decay of the averaged parameters that are sampled from; 0 = off

    config.log_every = 50
    config.eval_every = 500  # scores and picture grids on the validation split
    config.checkpoint_every = 500
    config.keep_checkpoints = 2
    config.upkeep_every = 0  # steps between two calls of the task's `upkeep`; 0 = it has none

    config.sampling = ml_collections.ConfigDict()  # empty for a tokenizer: it draws nothing
    return config


def quantizers() -> ml_collections.ConfigDict:
    """Options of each kind of quantizer (`t2i_jax.nn.quantizers.KINDS`); a model reads those of its own."""
    averages = {"decay": 0.99, "commitment": 0.25}  # of use and codes; weight of what binds features
    return ml_collections.ConfigDict(
        {
            "ema": averages,
            "gradient": averages,
            "l2": {**averages, "lookup_width": 8},
            "rotation": averages,
            "gumbel": {"temperature": 1.0, "kl_weight": 5e-4},
            "fsq": {},
        }
    )


def digits() -> ml_collections.ConfigDict:
    """The embedded data: captioned handwritten digits, 32 x 32 pixels."""
    data = ml_collections.ConfigDict()
    data.name = "captioned_digits"
    data.source = ""  # a file of one's own that opens the set (see `t2i_jax.data.sources`); "" finds it by its name
    data.data_dir = "data"  # where prepared TFDS sets lie, relative to the working directory
    data.train = "train"  # TFDS splits; parts of one as TFDS writes them: "train[:55000]"
    data.validation = "validation"
    data.corrupt = "skip"  # pictures that cannot be read are skipped and named; "refuse" stops instead
    data.image_size = 32  # H = W of its pictures; `config.model` reads it
    data.channels = 3
    return data


def photos() -> ml_collections.ConfigDict:
    """Crops of a dozen photographs that lie inside installed packages (extra `photos`), 64 x 64 pixels."""
    data = digits()
    data.name = "captioned_photos"
    data.image_size = 64
    return data


def mnist() -> ml_collections.ConfigDict:
    """MNIST, 28 x 28 pixels, one channel; the caption is the digit. TensorFlow prepares it (extra `prepare`)."""
    data = digits()
    data.name = "mnist"
    data.train, data.validation = "train[:55000]", "train[55000:]"
    data.image_size = 28
    data.channels = 1
    return data


def cifar10() -> ml_collections.ConfigDict:
    """CIFAR10, 32 x 32 pixels; the caption is the class. TensorFlow prepares it (extra `prepare`)."""
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


def on_tokens(config, tokenizer, data) -> None:
    """Set what experiments share that learn to draw tokens; `config.model` must be there.

    Args:
      config: of the experiment.
      tokenizer: config of the tokenizer's own experiment.
      data: `digits()` or another.
    """
    config.tokenizer = tokenizer
    config.tokenizer_run = f"runs/{tokenizer.name}"  # trained there first where no finished run is
    config.data = data
    config.data.text_len = 12  # S, word pieces a caption, [CLS] and [SEP] included
    config.data.caption_dropout = 0.1  # share of captions replaced by the null caption
    # One value, two places: overriding either field overrides both.
    for field in ("name", "source", "data_dir", "train", "validation", "corrupt"):
        tokenizer.data[field] = data.get_ref(field)
    tokenizer.model.codebook_size = config.model.get_ref("codebook_size")
    config.loss = {}
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
    config.tokenizer_start = True  # embeddings of image tokens, and the head, start as projections of the codes
    config.optim.lr = 2e-3
    config.optim.b2 = 0.98
    config.eval_every = 1000
    config.checkpoint_every = 250
    config.sampling = {  # a file of t2i_jax/sampling, and the settings that differ from its defaults
        "name": "autoregressive",
        "temperature": 0.3,
        "min_p": 0.05,
        "unguided_tokens": 8,
        "guidance_scale": 1.5,
    }
