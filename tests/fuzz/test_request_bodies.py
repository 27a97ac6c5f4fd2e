"""Whatever the body of a request holds, it is answered or refused; the long form has 100,000."""

from __future__ import annotations

import random

from tests.fuzz.request_bodies import fuzz


def test_a_made_up_body_is_never_an_internal_error() -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    found = fuzz(500, seed)
    assert found[200] > 25
    assert found[400] > 100
