"""The progress of a training, as its state keeps it."""

from __future__ import annotations

import json

import pytest

from gpt2.errors import UserError
from gpt2.training.progress import TrainingProgress


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-0.1e999", '"1.5"', "true", "[1.5]"])
@pytest.mark.parametrize("field", ["loss_sum", "recent_sum", "best_loss"])
def test_a_loss_that_is_no_finite_number_is_refused(field: str, value: str) -> None:
    facts = json.dumps(TrainingProgress(3).facts())
    changed = json.loads(facts) | {field: json.loads(value)}
    with pytest.raises(UserError, match=f"Field '{field}' is .*; expected a number"):
        TrainingProgress.from_facts(changed)
    assert TrainingProgress.from_facts(json.loads(facts)) == TrainingProgress(3)
