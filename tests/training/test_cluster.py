"""TF_CONFIG: which processes train together, and what is wrong with a malformed one."""

from __future__ import annotations

import json

import pytest

from gpt2.errors import UserError
from gpt2.training.cluster import Cluster, find_cluster, parse_tf_config

TWO = ["a:2222", "b:2222"]


def config(cluster: object, kind: object = "worker", index: object = 0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (config({"worker": TWO}, "worker", 1), Cluster(("a:2222", "b:2222"), 1)),
        # Kubeflow: a chief beside the workers. Vertex AI: the index is a string.
        (config({"chief": ["c:1"], "worker": TWO}, "chief", 0), Cluster(("c:1", *TWO), 0)),
        (config({"chief": ["c:1"], "worker": TWO}, "worker", "1"), Cluster(("c:1", *TWO), 2)),
        (config({"master": ["c:1"]}, "master"), Cluster(("c:1",), 0)),
        (config({"worker": TWO, "evaluator": ["e:1"]}), Cluster(("a:2222", "b:2222"), 0)),
    ],
)
def test_the_cluster_of_a_tf_config(content: str, expected: Cluster) -> None:
    assert parse_tf_config(content) == expected


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("{", "not valid JSON"),
        ("[]", '"cluster" is missing'),
        ('{"cluster": {"worker": ["a:1"]}}', '"task" is missing'),
        (config([]), '"cluster" is not an object'),
        (config({}), '"cluster" has no "worker"'),
        (config({"worker": []}), '"cluster" has no "worker"'),
        (config({"worker": "a:1"}), '"cluster.worker" is not a list'),
        (config({"worker": ["a"]}), "expected host:port"),
        (config({"worker": ["a:0"]}), "expected host:port"),
        (config({"worker": ["a:70000"]}), "expected host:port"),
        (config({"worker": [5]}), "expected host:port"),
        (config({"worker": ["a:1", "a:1"]}), "a:1 more than once"),
        (config({"worker": TWO, "ps": ["p:1"]}), "parameter servers"),
        (config({"worker": TWO, "boss": ["p:1"]}), "unknown job 'boss'"),
        (config({"chief": TWO, "worker": ["d:1"]}, "chief"), "several chiefs"),
        (config({"worker": TWO}, "evaluator"), "\"task.type\" is 'evaluator'"),
        (config({"worker": TWO}, 5), '"task.type" is not a string'),
        (config({"worker": TWO}, index=2), '"task.index" is 2, but "cluster" has 2'),
        (config({"worker": TWO}, index=-1), '"task.index" is -1'),
        (config({"worker": TWO}, index=True), '"task.index" is not a whole number'),
        (config({"worker": TWO}, index=None), '"task.index" is missing'),
    ],
)
def test_a_malformed_tf_config_is_named_by_its_key(content: str, key: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_tf_config(content)
    assert str(raised.value).startswith("TF_CONFIG: ") and key in str(raised.value)


def test_only_the_kinds_that_read_the_environment_use_it() -> None:
    both = {"TF_CONFIG": config({"worker": TWO})}
    for kind in ("auto", "multi_worker"):
        assert find_cluster(kind, both) == Cluster(tuple(TWO), 0)
    for kind in ("off", "mirrored"):
        assert find_cluster(kind, {"TF_CONFIG": "{"}) is None
    assert find_cluster("auto", {"TF_CONFIG": config({"worker": ["a:1"]})}) is None
    assert find_cluster("auto", {"SLURM_STEP_NUM_TASKS": "2"}) is None
    with pytest.raises(UserError, match="needs several workers"):
        find_cluster("multi_worker", {})


def test_the_cluster_of_a_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "SLURM_PROCID": "2",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "node[01-02]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = ("node01:8888", "node01:8889", "node02:8888")
    assert find_cluster("multi_worker", variables) == Cluster(expected, 2)
