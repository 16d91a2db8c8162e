"""`t2i sample`: pictures of prompts, or new pictures from a run that reads none."""

import dataclasses
import json
import sys
import time
from pathlib import Path

from t2i_jax import sampling
from t2i_jax.cli.checks import check_folder, check_grid_path, check_run, load_translator, load_unconditional
from t2i_jax.errors import UserError
from t2i_jax.random import check_seed
from t2i_jax.sampling.settings import check_setting

MAX_NUM = 1000  # pictures of one prompt
CLIP = "openai/clip-vit-base-patch32"


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    sample = commands.add_parser(
        "sample", help="draw pictures, of prompts where the run reads them", allow_abbrev=False
    )
    sample.add_argument("--run", required=True, help="run folder of a translator, or of a model without prompts")
    sample.add_argument("--prompt", action="append", help="a prompt; repeat it for more rows in the grid")
    sample.add_argument("--prompts-file", help="UTF-8 text, one prompt a line")
    sample.add_argument("-n", "--num", type=int, default=4, help=f"pictures (of each prompt), 1 to {MAX_NUM} (4)")
    for name, field in sampling.settings().items():
        option, number = "--" + name.replace("_", "-"), int if field.metadata["range"].whole else float
        sample.add_argument(option, type=number, help=f"{field.metadata['help']} (the run's own)")
    sample.add_argument(
        "--candidates", type=int, help=f"draw so many of each prompt and keep the -n best, up to {MAX_NUM} (-n)"
    )
    sample.add_argument(
        "--rerank",
        choices=["likelihood", "clip"],
        help="by what the best are found: how much likelier the prompt makes a picture, or CLIP (likelihood)",
    )
    sample.add_argument("--clip", help=f"folder of CLIP's released weights, or their name on the hub ({CLIP})")
    sample.add_argument("--seed", type=int, default=0, help="same seed, same pictures (0)")
    sample.add_argument(
        "--out",
        help="with --prompt a labelled grid, without prompts a plain one (grid.png); with --prompts-file a folder "
        "(samples) of unlabelled pictures and prompts.jsonl",
    )
    sample.set_defaults(function=run)


def run(args) -> None:
    """Draw what `args` say."""
    began = time.perf_counter()
    if args.prompt is not None and args.prompts_file is not None:
        raise UserError("give either --prompt or --prompts-file; both are given")
    if not 1 <= args.num <= MAX_NUM:
        raise UserError(f"-n {args.num} is out of range; give 1 to {MAX_NUM}")
    if args.candidates is not None and not args.num <= args.candidates <= MAX_NUM:
        raise UserError(f"--candidates {args.candidates} is out of range; give {args.num} (-n) to {MAX_NUM}")
    if args.rerank is not None and args.candidates is None:
        raise UserError(f"--rerank {args.rerank} needs --candidates, say {8 * args.num}")
    if args.clip is not None and args.rerank != "clip":
        raise UserError(f"--clip {args.clip} is read by --rerank clip alone; give both, or neither")
    check_seed(args.seed, "--seed")
    fields = sampling.settings()
    given = {name: getattr(args, name) for name in fields if getattr(args, name) is not None}
    for name, value in given.items():  # before the seconds that loading a run takes
        check_setting(fields[name], value)
    if args.prompts_file is not None:
        _sample_folder(args, given)
    elif args.prompt is not None:
        _sample_grid(args, given)
    else:
        _sample_unconditional(args, given)
    print(f"pictures after {time.perf_counter() - began:.1f} s", file=sys.stderr)


def _sample_grid(args, given):
    out = Path(args.out or "grid.png")
    for number, prompt in enumerate(args.prompt, start=1):
        if not prompt.strip():
            raise UserError(f"--prompt number {number} is empty; describe a picture")
    check_grid_path(out)
    check_run(args.run)
    pipe = load_translator(args.run)
    images = pipe(args.prompt, num_images=args.num, seed=args.seed, **_choice(args), **given)
    from t2i_jax.pictures import labelled_grid

    _save(labelled_grid(images, args.prompt), out)


def _sample_unconditional(args, given):
    out = Path(args.out or "grid.png")
    if args.candidates is not None:
        raise UserError("--candidates are ranked by a prompt, and there is none; give --prompt or --prompts-file")
    check_grid_path(out)
    check_run(args.run)
    images = load_unconditional(args.run, given).sample(args.num, args.seed, **given)
    from t2i_jax.pictures import plain_grid

    _save(plain_grid(images), out)


def _choice(args):
    """What says which pictures are drawn and kept."""
    if args.rerank != "clip":
        return {"candidates": args.candidates}
    from t2i_jax.pipelines.clip import Clip

    return {"candidates": args.candidates, "rerank": Clip(args.clip or CLIP)}


def _save(grid, out):
    out.parent.mkdir(parents=True, exist_ok=True)
    grid.save(out)
    print(out)


def _sample_folder(args, given):
    prompts, out = _read_prompts(args.prompts_file), Path(args.out or "samples")
    files = [[f"{p:05d}_{i:02d}.png" for i in range(args.num)] for p in range(len(prompts))]
    check_folder(out, {name for names in files for name in names})
    check_run(args.run)
    pipe = load_translator(args.run)
    images = pipe(prompts, num_images=args.num, seed=args.seed, **_choice(args), **given)
    settings = {"run": args.run, "digest": pipe.digest, "seed": args.seed, "n": args.num}
    settings["candidates"] = args.candidates
    settings["rerank"] = args.rerank or (args.candidates and "likelihood")
    settings["clip"] = (args.clip or CLIP) if args.rerank == "clip" else None
    settings |= dataclasses.asdict(pipe.sampling.replace(**given))
    _write_folder(out, images, prompts, files, settings)


def _write_folder(out, images, prompts, files, settings):
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    record = out / "prompts.jsonl"
    record.unlink(missing_ok=True)  # a record never describes another command's pictures
    lines = []
    for number, (prompt, names) in enumerate(zip(prompts, files, strict=True)):
        for name, image in zip(names, images[number], strict=True):
            Image.fromarray(image).save(out / name)
            print(out / name)
        entry = {"number": number, "prompt": prompt, "files": names} | settings
        lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    record.write_text("".join(lines), encoding="utf-8")
    print(record)


def _read_prompts(file):
    """The file's lines; each is a prompt, and none may be empty, so that numbers stay line numbers."""
    try:
        raw = Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"--prompts-file {file}: {error.strerror}; name a text file") from None
    try:
        lines = raw.decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"--prompts-file {file}: line {line} is not UTF-8; save the file as UTF-8") from None
    prompts = [line.removesuffix("\r") for line in lines]
    if not any(prompt.strip() for prompt in prompts):
        raise UserError(f"--prompts-file {file} is empty; write one prompt a line")
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.strip():
            raise UserError(f"--prompts-file {file}: line {number} is empty; remove it or write a prompt")
    return prompts
