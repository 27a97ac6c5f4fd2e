"""Loss scaling, without which float16 loses the small gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class LossScale:
    """What the loss is multiplied by before its gradients are computed.

    Micikevicius et al. 2018, section 3.2, dynamic: halved when a gradient is too large for
    float16, doubled after so many steps in a row without that. The names of its state begin with
    "loss_scale/".
    """

    FIRST, LEAST, PATIENCE = 2.0**15, 1.0, 2000

    def __init__(self) -> None:
        self.scale = self.FIRST
        self._good_steps = 0

    def succeeded(self) -> None:
        """Note a step whose gradients were all finite."""
        self._good_steps += 1
        if self._good_steps == self.PATIENCE:
            self.scale *= 2
            self._good_steps = 0

    def lower(self) -> bool:
        """Halve the scale after a gradient that was not finite; False if it is too low for that."""
        self._good_steps = 0
        if self.scale <= self.LEAST:
            return False
        self.scale /= 2
        return True

    @property
    def state(self) -> dict[str, np.ndarray]:
        """All that it remembers, by name."""
        return {
            "loss_scale/scale": np.array(self.scale, np.float32),
            "loss_scale/good_steps": np.array(self._good_steps, np.int64),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` gave."""
        self.scale = float(state["loss_scale/scale"])
        self._good_steps = int(state["loss_scale/good_steps"])
