"""The machines that train together: from TF_CONFIG, or from SLURM's variables.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
                "task": {"type": "worker", "index": 0}}'

Kubeflow and Vertex AI set it; "chief" or "master" is an accepted name of the first worker.
Source: https://www.tensorflow.org/api_docs/python/tf/distribute/cluster_resolver/TFConfigClusterResolver
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from gpt2.errors import UserError, quoted

TF_CONFIG = "TF_CONFIG"
FIRST_JOBS = ("chief", "master")  # names of a job that has the first worker alone
JOBS = (*FIRST_JOBS, "worker")
SLURM_PORT = 8888  # of the first process on each machine, the next ports for the others
MOST_TASKS = 1024  # on one machine

_ADDRESS = re.compile(r".+:(\d{1,5})")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a training, and which of them this process is.

    Attributes:
        addresses: host:port of each worker; the first one, the chief, writes all files.
        index: number of this worker, from 0.
    """

    addresses: tuple[str, ...]
    index: int

    def describe(self, worker: int) -> str:
        """Return the name of a worker for messages."""
        return f"worker {worker} ({self.addresses[worker]})"


def find_cluster(kind: str, environment: Mapping[str, str]) -> Cluster | None:
    """Return the cluster of several workers that the environment describes, or None.

    Args:
        kind: "auto" reads only TF_CONFIG, since SLURM sets its variables for single processes,
            too; "multi_worker" reads both; "off" and "mirrored" neither.
        environment: the environment variables.

    Raises:
        UserError: the description is malformed or contradicts itself, or "multi_worker" finds none.
    """
    cluster = None
    if kind in ("auto", "multi_worker") and (content := environment.get(TF_CONFIG, "").strip()):
        cluster = parse_tf_config(content)
    elif kind == "multi_worker" and environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        cluster = _slurm_cluster()
    if cluster and len(cluster.addresses) > 1:
        return cluster
    if kind == "multi_worker":
        raise UserError(
            f"distribute multi_worker needs several workers. Set {TF_CONFIG} for each of them, "
            "or start them with srun."
        )
    return None


def parse_tf_config(content: str) -> Cluster:
    """Return the cluster of a TF_CONFIG.

    Raises:
        UserError: it is malformed or contradicts itself; the sentence names the key.
    """
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _error(f"not valid JSON ({error})") from None
    cluster = _member(config, "cluster", dict)
    task = _member(config, "task", dict)
    for job in cluster:
        if job not in JOBS and job not in ("evaluator", "ps"):
            raise _error(f'"cluster" has an unknown job {quoted(job)}')
    if cluster.get("ps"):
        raise _error('"cluster" has parameter servers ("ps"), which are not supported')
    first = [job for job in FIRST_JOBS if cluster.get(job)]
    if len(first) > 1 or (first and len(_addresses(cluster, first[0])) > 1):
        raise _error('"cluster" has several chiefs; there can be one')
    jobs = [*first, *(["worker"] if cluster.get("worker") else [])]
    if not jobs:
        raise _error('"cluster" has no "worker"')
    addresses = [address for job in jobs for address in _addresses(cluster, job)]
    if twice := {address for address in addresses if addresses.count(address) > 1}:
        raise _error(f'"cluster" has {min(twice)} more than once')
    kind, index = _member(task, "type", str, "task."), _member(task, "index", int, "task.")
    if kind not in jobs:
        raise _error(f'"task.type" is {quoted(kind)}; "cluster" has {" and ".join(jobs)}')
    count = len(_addresses(cluster, kind))
    if not 0 <= index < count:
        raise _error(f'"task.index" is {index}, but "cluster" has {count} of {quoted(kind)}')
    before = len(first) if kind == "worker" else 0
    return Cluster(tuple(addresses), before + index)


def _member(parent: Any, name: str, kind: type, path: str = "") -> Any:
    """Return a member of a JSON object of the given type; a whole number may be a string."""
    value = parent.get(name) if isinstance(parent, dict) else None
    if kind is int and isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)  # as Vertex AI writes it
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = {dict: "an object", str: "a string", int: "a whole number"}[kind]
        raise _error(f'"{path}{name}" is {"missing" if value is None else f"not {wanted}"}')
    return value


def _addresses(cluster: dict[str, Any], job: str) -> list[str]:
    addresses = cluster[job]
    if not isinstance(addresses, list) or not addresses:
        raise _error(f'"cluster.{job}" is not a list of addresses')
    for address in addresses:
        found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if not found or not 0 < int(found[1]) < 2**16:
            raise _error(f'"cluster.{job}" has {quoted(address)}; expected host:port')
    return addresses


def _slurm_cluster() -> Cluster:
    """Return the cluster of a SLURM job step, as TensorFlow's resolver reads it."""
    from gpt2.quiet import import_tensorflow

    import_tensorflow(find_devices=False)
    import tensorflow as tf

    try:
        # Each process uses the GPUs that it sees; the resolver would count them with nvidia-smi.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=SLURM_PORT, gpus_per_node=MOST_TASKS, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = resolver.cluster_spec().job_tasks("worker")
        return Cluster(tuple(addresses), int(resolver.task_id))
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"SLURM's variables do not describe a cluster ({error}). Start the training with srun, "
            "or set TF_CONFIG."
        ) from error


def _error(problem: str) -> UserError:
    return UserError(
        f"{TF_CONFIG}: {problem}. Correct the variable, or train on one machine (distribute off)."
    )
