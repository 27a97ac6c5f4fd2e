"""Runs a SavedModel with TensorFlow alone: python -I saved_model_client.py FOLDER < REQUESTS.

Each line of standard input is a request in the form of TensorFlow Serving's REST interface:
{"signature_name": ..., "inputs": {...}}. Each line of output is {"outputs": {...}}; the results of
`*_bytes` are in base64, as there. An input {"answer": n} is the output of that name of answer n.
"""

import base64
import importlib.util
import json
import sys

import tensorflow as tf

assert importlib.util.find_spec("gpt2") is None, "this must run without the project"
loaded = tf.saved_model.load(sys.argv[1], tags=["serve"])
answers: list[dict] = []
for line in sys.stdin:
    request = json.loads(line)
    signature = loaded.signatures[request.get("signature_name", "serving_default")]
    specs = signature.structured_input_signature[1]
    inputs = {
        name: answers[value["answer"]][name]
        if isinstance(value, dict)
        else tf.constant(value, specs[name].dtype)
        for name, value in request["inputs"].items()
    }
    assert inputs.keys() == specs.keys()
    found = {}
    try:
        outputs = signature(**inputs)
    except tf.errors.InvalidArgumentError as error:
        answers.append({})
        print(json.dumps({"error": error.message}))
        continue
    answers.append(outputs)
    for name, value in outputs.items():
        values = value.numpy().tolist()
        if name.endswith("_bytes"):
            values = [{"b64": base64.b64encode(each).decode()} for each in values]
        found[name] = values
    print(json.dumps({"outputs": found}))
