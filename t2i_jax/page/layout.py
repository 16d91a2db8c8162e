"""The page itself, by gradio: three tabs over `Answers`."""

import functools
from typing import no_type_check

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from t2i_jax.errors import UserError, one_line
from t2i_jax.page import figures
from t2i_jax.page.answers import MAX_PROMPT, MAX_UPLOAD, Answers
from t2i_jax.page.gate import Gate

QUEUE = 16  # requests that may wait
SESSIONS = 8  # browsers that gradio remembers at a time
LOOPBACK = ("127.0.0.1", "localhost")
SHOWN = ("guidance_scale", "temperature", "top_k")  # other settings stand below these, folded
CSS = """
.t2i-pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 12px; }
.t2i-pictures figure { margin: 0; max-width: 320px; }
.t2i-pictures img { width: 100%; image-rendering: pixelated; border-radius: 4px; display: block; }
.t2i-pictures figcaption { font-size: 0.85rem; padding-top: 2px; }
.t2i-status progress { appearance: none; width: 100%; max-width: 320px; height: 8px; }
.t2i-status ::-webkit-progress-bar { background: #d4d4d8; border-radius: 4px; }
.t2i-status ::-webkit-progress-value { background: #ea580c; border-radius: 4px; }
.t2i-status ::-moz-progress-bar { background: #ea580c; }
body:not(.dark) .gradio-container { --block-info-text-color: #52525b; }
.t2i-error { border-left: 4px solid #dc2626; padding: 4px 12px; }
a:focus-visible, button:focus-visible, input:focus-visible, summary:focus-visible { outline: 3px solid #2563eb; }
"""
UPLOAD = f"""async (run) => {{
  const file = document.querySelector("#t2i-upload").files[0];
  if (!file) return [run, ""];
  return [run, await new Promise((done) => {{
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => done("unreadable");
    reader.readAsDataURL(file.slice(0, {MAX_UPLOAD + 1}, file.type || "image/unknown"));
  }})];
}}"""


def build(answers: Answers, examples: list[str]) -> gr.Blocks:
    """The page over some runs; `examples` are prompts that it offers."""
    with gr.Blocks(title="t2i", analytics_enabled=False) as page:
        gr.Markdown("# Pictures from words")
        with gr.Tab("Draw"):
            _draw(answers, examples)
        with gr.Tab("Reconstruct"):
            _reconstruct(answers)
        with gr.Tab("Compare"):
            _compare(answers, examples)
    page.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)  # what draws, waits its turn
    return page


def launch(page: gr.Blocks, host: str, port: int) -> str:
    """Serve the page in threads of this process; returns its address."""
    middleware = [Middleware(Gate, most=2 * MAX_UPLOAD)]
    if host in LOOPBACK:  # else a name on the internet that leads here would make a foreign page one of ours
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK)))
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        footer_links=[],
        run_history=False,
        state_session_capacity=SESSIONS,
        css=CSS,
        app_kwargs={"middleware": middleware},
    )
    return address


def _draw(answers, examples):
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            run, prompt = _run(answers), _prompt(examples)
            seed, number = _seed_and_number(answers)
            values = _settings(answers, run)
            button = gr.Button("Draw", variant="primary")
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(elem_classes="t2i-status")
            shown = gr.HTML(label="Pictures")
            with gr.Accordion("Look inside a picture", open=False):
                gr.Markdown("How unsure the model was of each token, and where it looked at each word.")
                picture = gr.Number(1, label="Picture", info="its number above", step=1)
                look = gr.Button("Look inside")
                seen = gr.HTML(label="Inside")
    draw = [run, prompt, seed, number, *values]
    _on([button.click, prompt.submit], answers.draw, draw, [status, shown])
    _on([look.click], answers.inside, [run, prompt, seed, picture, *values], [seen])


def _reconstruct(answers):
    run = _run(answers)
    gr.Markdown("What the picture tokenizer keeps of a picture of yours: no model can draw finer than that.")
    gr.HTML('<label>Your picture <input type="file" id="t2i-upload" accept="image/*"></label>')
    upload = gr.Textbox(visible=False)
    button = gr.Button("Reconstruct", variant="primary")
    shown = gr.HTML(label="Pictures")
    _on([button.click], answers.reconstruct, [run, upload], [shown], js=UPLOAD)


def _compare(answers, examples):
    prompt, (seed, number) = _prompt(examples), _seed_and_number(answers)
    sides, shown = [], []
    button = gr.Button("Draw both", variant="primary")
    status = gr.HTML(elem_classes="t2i-status")
    with gr.Row():
        for side, name in enumerate(("Left", "Right")):
            with gr.Column(min_width=300):
                gr.Markdown(f"### {name}")
                run = _run(answers, side)
                values = _settings(answers, run)
                sides += [run, *values]
                shown.append(gr.HTML(label=name))
    asked = [prompt, seed, number, *sides]
    _on([button.click, prompt.submit], answers.compare, asked, [status, *shown])


def _run(answers, number=0):
    names = list(answers.runs)
    value = names[min(number, len(names) - 1)]
    return gr.Dropdown(names, value=value, label="Run", visible=len(names) > 1, interactive=True)


def _prompt(examples):
    prompt = gr.Textbox(label="Prompt", placeholder=examples[0] if examples else "", max_length=MAX_PROMPT, lines=1)
    if examples:
        gr.Examples([[example] for example in examples], prompt, label="Examples", api_visibility="private")
    return prompt


def _seed_and_number(answers):
    most = answers.max_images
    with gr.Row():
        seed = gr.Number(0, label="Seed", info="same seed, same pictures", step=1, min_width=120)
        number = gr.Number(min(4, most), label="Pictures", info=f"1 to {most}", step=1, min_width=120)
    return seed, number


def _settings(answers, run) -> list:
    """A field for each setting of the run's sampler, with its help, in the order of the settings."""
    made = {}

    def make(names):
        for name in names:
            setting = answers.fields(run.value)[name].metadata
            value = getattr(answers.runs[run.value].sampling, name)
            step = 1 if setting["range"].whole else 0.1
            label = name.replace("_", " ").capitalize()
            made[name] = gr.Number(value, label=label, info=setting["help"], step=step, min_width=120)

    names = list(answers.fields(run.value))
    with gr.Row():
        make([name for name in SHOWN if name in names])
    with gr.Accordion("More settings", open=False), gr.Row():
        make([name for name in names if name not in SHOWN])
    values = [made[name] for name in names]
    run.change(answers.values, run, values, api_visibility="private")
    return values


def _on(triggers, function, inputs, outputs, js=None):
    """Run a function of `Answers` at a trigger; what people can mend stands in the first output, until they did."""
    others = [gr.skip()] * (len(outputs) - 1)

    @no_type_check  # what checks types under pytest would hide from gradio that this is a generator
    @functools.wraps(function)
    def answer(*args):
        try:
            yield from function(*args)
        except UserError as error:
            said = figures.error(one_line(error))
            yield (said, *others) if others else said

    gr.on(
        triggers,
        answer,
        inputs,
        outputs,
        js=js,
        show_progress_on=outputs[0],
        api_name=function.__name__,
        concurrency_id="drawing",  # one at a time, whichever it is
        concurrency_limit=1,
    )
