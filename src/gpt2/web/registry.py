"""The models that a server offers: loading, reloading after training, and unloading."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.resolve import find_model
from gpt2.errors import UserError
from gpt2.generation.language_model import LanguageModel
from gpt2.web.scheduler import Scheduler
from gpt2.workspace import Workspace

CACHE_BYTES = 5 << 28  # of the KV cache of a model, if the number of slots is not given
MOST_SLOTS = 32
WATCH_SECONDS = 2.0


def default_slots(slot_bytes: int) -> int:
    """Return how many sequences have room in 1.25 GiB of KV cache, 1 to 32."""
    return max(1, min(MOST_SLOTS, CACHE_BYTES // slot_bytes))


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """A loaded model and the scheduler that runs it.

    Attributes:
        name: the name that requests give.
        fingerprint: of its checkpoint.
        created: when it was loaded, in seconds since 1970.
    """

    name: str
    model: LanguageModel
    scheduler: Scheduler
    fingerprint: str
    created: int


class ModelRegistry:
    """Finds models by name, loads them when they are first needed, and reloads changed ones.

    Methods may be called from any thread; those that load a model block for seconds.
    """

    def __init__(
        self,
        names: Sequence[str],
        load: Callable[[ModelFolder], LanguageModel],
        models_dir: str | None = None,
        slots: int | None = None,
        most_waiting: int = 128,
        notice: Callable[[str], object] = lambda sentence: None,
    ):
        """Prepare a registry without loading a model.

        Args:
            names: the models that requests may name; these stay loaded.
            load: loads a model, for example `gpt2.generation.loading.open_model`.
            models_dir: see `find_model`.
            slots, most_waiting: see `Scheduler`; the default of slots depends on the model.
            notice: called with a sentence when a model was reloaded or could not be.
        """
        self.names = list(dict.fromkeys(names))
        self._load = load
        self._models_dir = models_dir
        self._slots = slots
        self._most_waiting = most_waiting
        self._notice = notice
        self._loaded: dict[str, ServedModel] = {}
        self._retired: list[Scheduler] = []
        self._failed: dict[str, str] = {}  # fingerprints of checkpoints that could not be loaded
        self._loading = threading.Lock()
        self._stopped = threading.Event()

    @property
    def loaded(self) -> list[ServedModel]:
        """The loaded models."""
        return list(self._loaded.values())

    @property
    def stopped(self) -> bool:
        """Whether the server is shutting down."""
        return self._stopped.is_set()

    def available(self) -> list[str]:
        """Return the served names and those of all other models and runs on this machine."""
        others = Workspace.find(self._models_dir).names()
        return list(dict.fromkeys([*self.names, *others]))

    def get(self, name: str) -> ServedModel | None:
        """Return a model if it is loaded."""
        return self._loaded.get(name)

    def open(self, name: str) -> ServedModel:
        """Return a model of `available()`, loading it if necessary.

        Of the models that were not named when the server was started, the last one stays loaded.

        Raises:
            UserError: it is not available or cannot be loaded.
        """
        with self._loading:
            if served := self._loaded.get(name):
                return served
            if name not in self.available():
                raise UserError(f"There is no model {name!r}. Use one of: {self.list_names()}.")
            served = self._open(name, find_model(name, self._models_dir))
            for other in set(self._loaded) - set(self.names):
                self._retire(self._loaded.pop(other))
            self._loaded[name] = served
            return served

    def list_names(self) -> str:
        """Return the served names as part of a message."""
        return ", ".join(self.names)

    def watch(self) -> None:
        """Reload models whose checkpoint changes, until `stop` is called. Runs in a thread."""
        while not self._stopped.wait(WATCH_SECONDS):
            self.reload_changed()

    def reload_changed(self) -> None:
        """Replace loaded models whose checkpoint has changed, unless the new one is broken.

        Running requests finish with the model that they began with.
        """
        for served in self.loaded:
            fingerprint = ""
            try:
                folder = find_model(served.name, self._models_dir)
                fingerprint = bundle.fingerprint(folder.checkpoint)
                if fingerprint in (served.fingerprint, self._failed.get(served.name)):
                    continue
                with self._loading:
                    self._loaded[served.name] = self._open(served.name, folder)
                    self._retire(served)
                self._failed.pop(served.name, None)
                self._notice(f"{served.name}: now serving {folder.checkpoint.name}.")
            except Exception as error:  # also a bug in reading it must not end the server
                reason = str(error) if isinstance(error, UserError) else repr(error)
                if self._failed.get(served.name) != fingerprint:
                    self._failed[served.name] = fingerprint
                    self._notice(
                        f"{served.name}: the new checkpoint cannot be loaded; still serving the "
                        f"previous one. {reason}"
                    )

    def stop(self, seconds: float) -> None:
        """Let running completions finish for some seconds, then end them where they are."""
        self._stopped.set()
        schedulers = [*(served.scheduler for served in self.loaded), *self._retired]
        for scheduler in schedulers:
            scheduler.close()
        end = time.monotonic() + seconds
        for scheduler in schedulers:
            scheduler.join(max(0.0, end - time.monotonic()))
            scheduler.stop()

    def _open(self, name: str, folder: ModelFolder) -> ServedModel:
        fingerprint = bundle.fingerprint(folder.checkpoint)
        model = self._load(folder)
        slots = self._slots or default_slots(model.engine.slot_bytes)
        scheduler = Scheduler(model, slots, self._most_waiting)
        return ServedModel(name, model, scheduler, fingerprint, int(time.time()))

    def _retire(self, served: ServedModel) -> None:
        served.scheduler.close()
        self._retired = [one for one in self._retired if not one.join(0)]
        self._retired.append(served.scheduler)
