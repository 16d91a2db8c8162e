"""A tiny export, and what it draws: `export_FORMAT/` and `drawn_FORMAT.npz`. Run once for each format number.

python tests/golden/export.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
PROMPTS = ["a red seven", "two blue threes"]


def write_run(folder: Path) -> None:
    """A translator and its tokenizer, of made-up parameters: 24 tokens of 16, pictures of 16 x 16 pixels."""
    from t2i_jax import runs
    from t2i_jax.config import load_config
    from t2i_jax.data import vocabularies

    sizes = {"codebook_size": 16, "image_size": 16, "hues": 4, "gains": 4, "block": 8, "patch": 4, "width": 8}
    tiny = {"width": 8, "heads": 2, "mlp_width": 16, "layers": 1}
    config = load_config("translator:smoke").unlock()
    config.parents.tokenizer.config.model.update(sizes)
    config.model.update({"codebook_size": 16, "text_vocab_size": 16})
    config.model.encoder.update(tiny)
    config.model.decoder.update(tiny)
    config.shown_captions = PROMPTS
    tokenizer = config.parents.tokenizer.config
    _write(runs.parent_folder(folder, "tokenizer"), tokenizer, scale=1)
    _write(folder, config, scale=4)  # so that logits differ
    pieces = vocabularies.build_word_pieces(PROMPTS, config.model.text_vocab_size)
    vocabularies.write_word_pieces(folder / runs.TEXT_TOKENIZER, pieces)


def _write(folder: Path, config, scale: float) -> None:
    import jax
    from fakes import fake_variables

    from t2i_jax import runs, tasks
    from t2i_jax.loop import parallel

    config.data.image_size = 16
    folder.mkdir(parents=True, exist_ok=True)
    shapes = parallel.make(tasks.make(config)).shapes
    variables = fake_variables({"params": shapes.params, **shapes.variables})
    params = jax.tree.map(lambda x: scale * x, variables.pop("params"))
    runs.write_config(folder, config)
    runs.write_weights(folder, params, variables, config.steps)


def draw(pipe) -> dict[str, np.ndarray]:
    """Token ids and pictures of the prompts, two of each, with seed 0."""
    prompts, indices = [prompt for prompt in PROMPTS for _ in range(2)], np.arange(4) % 2
    return {
        "ids": pipe.draw_ids(prompts, indices, 0, pipe.sampling),
        "images": pipe(PROMPTS, num_images=2, seed=0),
    }


if __name__ == "__main__":
    sys.path[:0] = [str(FOLDER.parents[1]), str(FOLDER.parent)]
    import t2i_jax
    from t2i_jax import cli, runs

    made = FOLDER / f"export_{runs.FORMAT}"
    with tempfile.TemporaryDirectory() as work:
        write_run(Path(work))
        if code := cli.main(["export", "--run", work, "--out", str(made)]):
            sys.exit(code)
    (made / "samples.png").unlink()  # as large as the rest
    np.savez_compressed(FOLDER / f"drawn_{runs.FORMAT}.npz", **draw(t2i_jax.load(made)))
