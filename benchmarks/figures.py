"""A picture of what runs do: reconstructions, new pictures, pictures by caption.

    python benchmarks/figures.py runs/vae-digits --out docs/vae-digits.png
    python benchmarks/figures.py runs/prior-digits --out docs/prior-digits.png
    python benchmarks/figures.py runs/vqvae-fashion_fine runs/vqvae-fashion runs/prior-fashion --out fashion.png

Originals are the first eight of the first run's validation split; the seed of what is drawn is 0. Several image
tokenizers stand below the same originals.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import t2i_jax
from t2i_jax.data import sources
from t2i_jax.evals.pictures import reconstruct, sample_uniform
from t2i_jax.pictures import labelled_grid, to_uint8

ROW = 8  # pictures, as `labelled_grid` has them


def of_autoencoder(pipe, originals):
    """Parts of the figure, each pictures by title."""
    restored = to_uint8(pipe.decode(pipe.encode(originals)))
    yield "validation pictures over their reconstructions", np.concatenate([originals, restored])
    if pipe.config.model.variational:
        yield "new pictures from N(0, I)", pipe.sample(2 * ROW)
    between = pipe.interpolate(originals[:2], originals[2:4], ROW)
    yield "between two pictures", between.reshape(-1, *originals.shape[1:])


def of_prior(pipe):
    """As `of_autoencoder`."""
    captions = list(pipe.config.shown_captions)
    yield from zip(captions, pipe(captions, num_images=4), strict=True)
    yield "(no caption)", pipe.sample(4)
    yield "(uniform ids, no prior)", sample_uniform(pipe.tokenizer, 4, seed=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pipes = [t2i_jax.load(run) for run in arguments.runs]
    data = pipes[0].config.data
    dataset, _ = sources.open_split(data, data.validation)
    originals = np.stack([dataset[i]["image"] for i in range(ROW)])

    tokenizers = [pipe for pipe in pipes if hasattr(pipe, "tokenize")]
    grids = []
    if tokenizers:
        rows = [originals, *(reconstruct(pipe, originals) for pipe in tokenizers)]
        sizes = ", ".join(f"{pipe.num_tokens} tokens" for pipe in tokenizers)
        grids.append(labelled_grid(np.concatenate(rows)[None], [f"validation pictures; {sizes}"]))
    for pipe in pipes:
        if hasattr(pipe, "interpolate"):
            grids += [labelled_grid(images[None], [title]) for title, images in of_autoencoder(pipe, originals)]
        elif pipe not in tokenizers:
            titles, images = zip(*of_prior(pipe), strict=True)
            grids.append(labelled_grid(np.stack(images), titles))

    figure = Image.new("RGB", (max(grid.width for grid in grids), sum(grid.height for grid in grids)), "white")
    top = 0
    for grid in grids:
        figure.paste(grid, ((figure.width - grid.width) // 2, top))
        top += grid.height
    figure.save(arguments.out, optimize=True)
    print(arguments.out)


if __name__ == "__main__":
    main()
