"""Training, encoding and evaluation as functions, for notebooks and programs."""

from gpt2.api.encoding import EncodingResult, encode
from gpt2.api.evaluation import EvaluationResult, evaluate
from gpt2.api.training import TrainingResult, train

__all__ = ["EncodingResult", "EvaluationResult", "TrainingResult", "encode", "evaluate", "train"]
