#!/usr/bin/env python3
"""Let a model write from nothing.

python src/generate_unconditional_samples.py --model_name 117M --nsamples 3
"""

from command_line import run_fire
from gpt2.errors import UserError
from text_flags import TextFlags, note_window, print_banner, with_text_flags


@with_text_flags(nsamples=0)
def sample_model(flags: TextFlags) -> None:
    """Generate samples without a prompt; --nsamples 0 goes on until Ctrl+C."""
    if flags.beams:
        raise UserError("A search finds the same text each time: give it a prompt to go on from.")
    model = flags.open(halves=2)
    samples = model.samples(
        [model.start_token], flags.nsamples or None, flags.settings(model), flags.batch_size
    )
    for number, text in enumerate(samples, start=1):
        note_window(text, model)
        print_banner(number)
        print(flags.shown_text(text), flush=True)


if __name__ == "__main__":
    run_fire(sample_model)
