"""Data-parallel training on several devices or machines, with tf.distribute.

Each device has a copy of the variables and computes the gradients of its share of a batch. The sum
of the gradients is exchanged (all-reduce), and every device makes the same update, so the copies
stay equal. Source: https://www.tensorflow.org/guide/distributed_training

A batch is a function of the seed and its number, so each process makes the whole batch and takes
its rows; no examples go over the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2.data.samplers import PADDING, Batch
from gpt2.errors import UserError, in_short
from gpt2.training.cluster import TF_CONFIG, Cluster
from gpt2.version import code_fingerprint

# Seconds after which a worker counts as lost: without a heartbeat, and at the start.
HEARTBEAT, START = 30, 300
START_VARIABLE = "GPT2_WORKER_TIMEOUT"  # overrides START

_PAUSE = 0.2  # seconds between attempts to reach the other workers
_PROBE = 2.0  # seconds to wait for a connection, to find out which worker is gone

Function = Callable[..., Any]


class Distribution:
    """How a training is shared: this class is one device in one process.

    Attributes:
        devices: number of devices that train together, of all processes.
        worker: number of this process, from 0; 0 is the chief, which writes all files.
        workers: number of processes.
    """

    devices = workers = 1
    worker = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints, samples and history."""
        return self.worker == 0

    @contextlib.contextmanager
    def variables(self) -> Iterator[None]:
        """Create the variables of a training in this context, so that each device has a copy."""
        yield

    def run(self, function: Function, *arguments: Any) -> Any:
        """Run a function on each device of this process, within a graph.

        Args:
            arguments: what `share` returned.

        Returns:
            What the function returned on the first device.
        """
        return function(*arguments)

    def call(self, graph: Function, *arguments: Any) -> Any:
        """Call a graph that exchanges tensors with other devices.

        Raises:
            UserError: a worker is lost.
        """
        return graph(*arguments)

    def share(self, of_device: Callable[[int], tuple]) -> tuple:
        """Return the arguments of `run`: of each device its own, by its number among `devices`."""
        return of_device(0)

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the sums of tensors over all devices; to be used inside of `run`."""
        return list(tensors)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all have to call it at the same point."""
        return flag

    def check_same(self, facts: Mapping[str, object]) -> None:
        """Check that all processes have the same facts, by name.

        Raises:
            UserError: one of them differs; the sentence names it and the worker.
        """

    def rows_of(self, batch: Batch, device: int) -> Batch:
        """Return the rows of a batch that are the share of a device.

        All shares have the same shape; those at the end may contain rows without targets.
        """
        if self.devices == 1:
            return batch
        size = -(-len(batch.inputs) // self.devices)
        rows = batch.rows(slice(device * size, (device + 1) * size))
        missing = size - len(rows.inputs)
        if not missing:
            return rows
        empty = batch.rows(slice(0, 1))
        empty = empty._replace(targets=np.full_like(empty.targets, PADDING))
        return Batch.joined([*([rows] if len(rows.inputs) else []), *[empty] * missing])

    def check_batch_size(self, size: int) -> None:
        """Check that a batch can be shared equally.

        Raises:
            UserError: the size is no multiple of the number of devices.
        """
        if size % self.devices:
            less, more = size // self.devices * self.devices, -(-size // self.devices)
            sizes = f"{less} or {more * self.devices}" if less else f"{self.devices}"
            raise UserError(
                f"batch_size {size} cannot be shared by {self.devices} devices. Use {sizes}, or "
                "another multiple."
            )


class _Strategy(Distribution):
    """A distribution on a strategy of tf.distribute."""

    def __init__(self, strategy: Any):
        self._strategy = strategy
        self.devices = strategy.num_replicas_in_sync

    @contextlib.contextmanager
    def variables(self) -> Iterator[None]:
        def creator(create: Function, **options: Any) -> tf.Variable:
            # Each device changes its own copy; reading gives that of the first device.
            options["synchronization"] = tf.VariableSynchronization.ON_READ
            options["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
            return create(**options)

        with self._strategy.scope(), tf.variable_creator_scope(creator):
            yield

    def run(self, function: Function, *arguments: Any) -> Any:
        results = self._strategy.run(function, arguments)
        return tf.nest.map_structure(
            lambda result: self._strategy.experimental_local_results(result)[0], results
        )

    def share(self, of_device: Callable[[int], tuple]) -> tuple:
        count = len(self._strategy.extended.worker_devices)  # of this process
        first = self.worker * count
        return self._regrouped([of_device(first + number) for number in range(count)])

    def _regrouped(self, values: list[Any]) -> Any:
        """Return the values of all devices as one; None and numbers are the same for all."""
        if isinstance(values[0], tuple):
            parts = [self._regrouped(list(part)) for part in zip(*values, strict=True)]
            make = getattr(values[0], "_make", tuple)  # of a named tuple
            return make(parts)
        if not isinstance(values[0], np.ndarray | tf.Tensor):
            return values[0]
        left = iter(values)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(next(left))
        )

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        placed = [tf.identity(tensor) for tensor in tensors]  # arguments of a graph have no device
        return context.all_reduce(tf.distribute.ReduceOp.SUM, placed)


class MultiWorker(_Strategy):
    """Several processes, usually on several machines."""

    def __init__(self, cluster: Cluster):
        """Wait for all workers.

        Raises:
            UserError: the address is taken, or a worker does not come in time.
        """
        self.cluster = cluster
        self.worker, self.workers = cluster.index, len(cluster.addresses)
        self._meet()  # since the strategy would wait for a missing worker without end
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
            task_type="worker",
            task_id=cluster.index,
            rpc_layer="grpc",
        )
        _configure_heartbeat(self.workers)
        try:
            super().__init__(tf.distribute.MultiWorkerMirroredStrategy(resolver))
        except (tf.errors.OpError, RuntimeError) as error:
            raise UserError(
                f"{cluster.describe(self.worker)} cannot join the others ({in_short(error)}). "
                f"Check the addresses in {TF_CONFIG}."
            ) from error
        # One graph for all sizes: `any` is called at every step.
        self._sum = tf.function(
            lambda table: self.run(lambda table: self.sum([table])[0], table),
            autograph=False,
            reduce_retracing=True,
        )

    def call(self, graph: Function, *arguments: Any) -> Any:
        """See `Distribution.call`."""
        try:
            return graph(*arguments)
        except (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.FailedPreconditionError,
            tf.errors.DeadlineExceededError,
            tf.errors.InternalError,
        ) as error:
            raise self._lost(error) from error

    def any(self, flag: bool) -> bool:
        """See `Distribution.any`."""
        return any(self._gather(np.array([flag], np.int32)).tolist())

    def check_same(self, facts: Mapping[str, object]) -> None:
        """See `Distribution.check_same`."""
        own = {
            **facts,
            "Python": platform.python_version(),
            "TensorFlow": tf.__version__,
            "code of retrain-gpt2": code_fingerprint(),
            "number of devices": self.devices // self.workers,
        }
        content = json.dumps(own, default=str).encode()
        for worker, other in enumerate(self._gather_bytes(content)):
            theirs = json.loads(other)
            for name, value in json.loads(content).items():
                if theirs.get(name) != value:
                    raise UserError(
                        f"{self.cluster.describe(worker)} has another {name}: "
                        f"{in_short(theirs.get(name))} there, {in_short(value)} here "
                        f"(worker {self.worker}). All workers need the same command, code, data "
                        "and run folder."
                    )

    def _gather_bytes(self, content: bytes) -> list[bytes]:
        """Return the bytes that each worker has given, in their order."""
        sizes = self._gather(np.array([len(content)], np.int32)).tolist()
        padded = np.zeros(max(sizes), np.int32)
        padded[: len(content)] = np.frombuffer(content, np.uint8)
        rows = self._gather(padded).reshape(self.workers, -1)
        return [bytes(row[:size].tolist()) for row, size in zip(rows, sizes, strict=True)]

    def _gather(self, own: np.ndarray) -> np.ndarray:
        """Return the arrays of all workers, int32 [N] each, concatenated."""
        table = np.zeros((self.workers, len(own)), np.int32)
        table[self.worker] = own
        first = self.worker * (self.devices // self.workers)  # device

        def of_device(device: int) -> tuple:
            return (tf.constant(table if device == first else np.zeros_like(table)),)

        return np.asarray(self.call(self._sum, *self.share(of_device))).reshape(-1)

    def _lost(self, error: Exception) -> UserError:
        """Return the sentence on a worker that is gone."""
        gone = [
            self.cluster.describe(worker)
            for worker, address in enumerate(self.cluster.addresses)
            if worker != self.worker and not _answers(address)
        ]
        who = " and ".join(gone) or "another worker"
        return UserError(
            f"Lost {who}: training cannot continue. Start all workers again with the same command; "
            "training resumes from the last checkpoint."
        )

    def _meet(self) -> None:
        """Wait until all workers accept connections at their addresses.

        Raises:
            UserError: the own port is taken, or a worker does not come in time.
        """
        seconds = float(os.environ.get(START_VARIABLE) or START)
        own = self.cluster.addresses[self.worker]
        end = time.monotonic() + seconds
        missing = [worker for worker in range(self.workers) if worker != self.worker]
        with _listening(own):
            while missing:
                missing = [
                    worker for worker in missing if not _answers(self.cluster.addresses[worker])
                ]
                if missing and time.monotonic() > end:
                    names = " and ".join(map(self.cluster.describe, missing))
                    raise UserError(
                        f"{names} did not come within {seconds:g} seconds. Start all workers "
                        f"together and check the addresses in {TF_CONFIG}; the variable "
                        f"{START_VARIABLE} changes the waiting time."
                    )
                time.sleep(_PAUSE if missing else 0)


def connect(kind: str, cluster: Cluster | None = None) -> Distribution:
    """Return the distribution of a training, after waiting for all workers.

    Args:
        kind: "off" for one device; "mirrored" for all GPUs of this machine; "multi_worker" for
            the workers of the cluster; "auto" for the cluster or the GPUs, if there are several.
        cluster: the workers; see `cluster.find_cluster`.

    Raises:
        UserError: the workers do not come together.
    """
    if cluster and kind in ("auto", "multi_worker"):
        return MultiWorker(cluster)
    if kind in ("auto", "mirrored"):
        gpus = tf.config.list_logical_devices("GPU")
        devices = gpus if kind == "auto" else gpus or tf.config.list_logical_devices("CPU")
        if len(devices) > 1:
            return _Strategy(tf.distribute.MirroredStrategy([device.name for device in devices]))
    return Distribution()


def _configure_heartbeat(workers: int) -> None:
    """Set how soon a lost worker is noticed, before the strategy sets its own, longer, times."""
    from tensorflow.python.distribute import collective_all_reduce_strategy
    from tensorflow.python.eager import context

    proto = collective_all_reduce_strategy.coordination_config_pb2
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        heartbeat_timeout_in_ms=HEARTBEAT * 1000,
        coordinated_jobs=[proto.CoordinatedJob(name="worker", num_tasks=workers)],
    )


@contextlib.contextmanager
def _listening(address: str) -> Iterator[None]:
    """Accept connections at the port of an address within the block.

    Raises:
        UserError: the port is taken.
    """
    port = int(address.rpartition(":")[2])
    try:
        server = socket.create_server(("", port), reuse_port=False)
    except OSError as error:
        raise UserError(
            f"{address}: the port is taken ({os.strerror(error.errno or 0)}). End the process "
            f"that has it, or change {TF_CONFIG} for all workers."
        ) from error
    with server:
        yield


def _answers(address: str) -> bool:
    """Return whether something accepts connections at host:port."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PROBE):
            return True
    except OSError:
        return False
