"""`t2i sample` and `t2i evaluate`: checked arguments in, files and a table out.

Results go to stdout, warnings and errors to stderr. An error is one line, exit code 2. jax, numpy and PIL are
imported inside the commands, so that `t2i --help` answers at once.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

import t2i_jax
from t2i_jax.errors import UserError
from t2i_jax.sampling.settings import Sampling

MAX_NUM = 1000  # pictures of one prompt
MAX_SEED = 2**32 - 1  # a jax random key reads 32 bits


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message}; see {self.prog} --help")


def build_parser():
    """The argparse parser of `t2i`; bad usage raises `UserError`."""
    parser = _Parser(prog="t2i", description="Text to image with discrete tokens.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sample = commands.add_parser("sample", help="draw pictures of prompts", allow_abbrev=False)
    sample.add_argument("--run", required=True, help="run folder of a translator")
    sample.add_argument("--prompt", action="append", help="a prompt; repeat it for more rows in the grid")
    sample.add_argument("--prompts-file", help="UTF-8 text, one prompt a line")
    sample.add_argument("-n", "--num", type=int, default=4, help=f"pictures of each prompt, 1 to {MAX_NUM} (4)")
    unset = "(the run's own)"
    sample.add_argument("--guidance-scale", type=float, help=f"weight of the caption; 1 is none {unset}")
    sample.add_argument("--temperature", type=float, help=f"divides the logits; 0 is greedy {unset}")
    sample.add_argument("--top-k", type=int, help=f"draw from the k likeliest tokens; 0 is off {unset}")
    sample.add_argument("--top-p", type=float, help=f"draw from the likeliest share p; 1 is off {unset}")
    sample.add_argument(
        "--min-p", type=float, help=f"draw tokens at least p times as likely as the likeliest {unset}"
    )
    sample.add_argument("--plain-tokens", type=int, help=f"leading tokens at temperature 1, unguided {unset}")
    sample.add_argument("--seed", type=int, default=0, help="same seed, same pictures (0)")
    sample.add_argument(
        "--out",
        help="with --prompt a labelled grid (grid.png); with --prompts-file a folder (samples) of "
        "unlabelled pictures and prompts.jsonl",
    )
    sample.set_defaults(function=_sample)

    evaluate = commands.add_parser("evaluate", help="score a run's pictures", allow_abbrev=False)
    evaluate.add_argument("--run", required=True, help="run folder of a translator")
    evaluate.add_argument("--seed", type=int, default=0, help="seed of prompts and pictures (0)")
    evaluate.add_argument("--out", help="where the JSON goes (RUN/evaluation.json)")
    evaluate.set_defaults(function=_evaluate)
    return parser


def main(argv=None):
    """Run `t2i` with `argv` (default: the command line); returns the exit code, 0, 2 or 130."""
    try:
        args = build_parser().parse_args(argv)
        args.function(args)
    except (UserError, OSError) as error:
        print("t2i:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("t2i: interrupted", file=sys.stderr)
        return 130
    return 0


def _sample(args):
    if (args.prompt is None) == (args.prompts_file is None):
        both = "both are given" if args.prompt else "neither is given"
        raise UserError(f"give either --prompt or --prompts-file; {both}")
    if not 1 <= args.num <= MAX_NUM:
        raise UserError(f"-n {args.num} is out of range; give 1 to {MAX_NUM}")
    _check_seed(args.seed)
    names = [field.name for field in dataclasses.fields(Sampling)]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    Sampling(**given)  # before the seconds that loading a run takes
    if args.prompt is not None:
        prompts, out = args.prompt, Path(args.out or "grid.png")
        for number, prompt in enumerate(prompts, start=1):
            if not prompt.strip():
                raise UserError(f"--prompt number {number} is empty; describe a picture")
        _check_grid_path(out)
    else:
        prompts, out = _read_prompts(args.prompts_file), Path(args.out or "samples")
    files = [[f"{p:05d}_{i:02d}.png" for i in range(args.num)] for p in range(len(prompts))]
    if args.prompt is None:
        _check_folder(out, {name for names in files for name in names})
    _check_run(args.run)

    pipe = _load_translator(args.run)
    images = pipe(prompts, num_images=args.num, seed=args.seed, **given)
    if args.prompt is not None:
        from t2i_jax.data.pictures import labelled_grid

        out.parent.mkdir(parents=True, exist_ok=True)
        labelled_grid(images, prompts).save(out)
        print(out)
    else:
        settings = {"run": args.run, "digest": pipe.digest, "seed": args.seed, "n": args.num}
        settings |= dataclasses.asdict(dataclasses.replace(pipe.sampling, **given))
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


def _evaluate(args):
    _check_seed(args.seed)
    _check_run(args.run)
    out = Path(args.out or Path(args.run) / "evaluation.json")
    _check_file(out)

    pipe = _load_translator(args.run)
    from t2i_jax.evals.report import evaluate_run
    from t2i_jax.files import write_json

    table, results = evaluate_run(pipe, args.run, seed=args.seed)
    print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, results)
    print(out)


def _load_translator(run):
    pipe = t2i_jax.load(run)
    if not callable(pipe):  # a tokenizer knows pictures and tokens, no captions
        raise UserError(
            f"--run {run} holds an image tokenizer, which reads no prompt; name a translator's run "
            "(train.py --config=configs/translator.py trains one)"
        )
    return pipe


def _check_seed(seed):
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"--seed {seed} is out of range; give 0 to {MAX_SEED}")


def _check_run(run):
    if not Path(run).is_dir():
        raise UserError(f"--run {run} is no folder; name one that train.py wrote (its --workdir)")


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


def _check_grid_path(out):
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out} does not end in .png; a grid is written as PNG")
    _check_file(out)


def _check_file(out):
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file")
    if out.exists() and not os.access(out, os.W_OK):
        raise UserError(f"--out {out}: Permission denied; name a file that can be written")
    _check_writable(out, out.parent)


def _check_folder(out, names):
    _check_writable(out, out)
    if not out.is_dir():
        return
    others = sorted(path.name for path in out.glob("*.png") if path.name not in names)
    if others:
        raise UserError(
            f"--out {out} holds {others[0]}, which this command would not overwrite; name another folder, "
            "so that pictures are not mixed"
        )


def _check_writable(out, folder):
    """Prove that `folder` can be written, or made, without leaving a trace."""
    while not os.path.lexists(folder):
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--out {out}: cannot write in {folder}: {error.strerror}; name another") from None
