"""`unconditional`: samples without a prompt."""

from __future__ import annotations

import itertools

from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values
from gpt2.commands.sampling_options import (
    generate,
    open_model,
    sampler_options,
    show_notices,
    shown_text,
)
from gpt2.commands.streams import check_output
from gpt2.commands.terminal import for_terminal, print_banner
from gpt2.generation.completions import in_order


def check(values: Values) -> None:
    """Check that samples are drawn: all results of a beam search would be the same."""
    if values.beams:
        raise UsageError("--beams needs a prompt; use the interactive or conditional command")


def run(values: Values) -> None:
    """Print samples under numbered banners."""
    check_output()
    model = open_model(values, share=1)
    numbers = range(values.nsamples) if values.nsamples else itertools.count()
    requests = ((number, [model.start_token]) for number in numbers)
    for completion in in_order(generate(model, requests, values)):
        print_banner(completion.number + 1)
        print(for_terminal(shown_text(completion, values)), flush=True)
        show_notices(completion, model)


COMMAND = Command(
    summary="Generate samples without a prompt.",
    details="Without --nsamples, samples are generated until Ctrl+C.",
    groups=sampler_options(nsamples=0),
    run=run,
    by_fire=True,
    check=check,
)
