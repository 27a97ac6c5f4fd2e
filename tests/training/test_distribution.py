"""Several devices of one process take the same steps as one device."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2.data.samplers import Batch
from gpt2.errors import UserError
from gpt2.training.distribution import Distribution
from tests.support import waiting

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_two_devices_have_the_losses_and_weights_of_one() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    script = [sys.executable, Path(__file__).with_name("mirrored.py")]
    done = waiting.run(script, env=environment)
    assert done.returncode == 0, done.stderr
    for name, differences in json.loads(done.stdout).items():
        assert differences["losses"] < 1e-5, name
        assert differences["weights"] < 1e-4, name


@pytest.mark.parametrize(("rows", "devices"), [(1, 2), (3, 2), (4, 2), (5, 3), (2, 4)])
def test_the_shares_of_a_batch_have_each_target_once(rows: int, devices: int) -> None:
    batch = Batch.of_rows(np.arange(rows * 5, dtype=np.int32).reshape(rows, 5))
    distribution = Distribution()
    distribution.devices = devices
    shares = [distribution.rows_of(batch, device) for device in range(devices)]
    assert len({share.inputs.shape for share in shares}) == 1
    targets = np.concatenate([share.targets for share in shares])
    assert targets[targets >= 0].tolist() == batch.targets.ravel().tolist()


@pytest.mark.parametrize(("size", "sizes"), [(1, "Use 4,"), (6, "Use 4 or 8,"), (9, "Use 8 or 12")])
def test_a_batch_that_cannot_be_shared_is_refused(size: int, sizes: str) -> None:
    distribution = Distribution()
    distribution.devices = 4
    with pytest.raises(UserError, match=sizes):
        distribution.check_batch_size(size)
    distribution.check_batch_size(8)
