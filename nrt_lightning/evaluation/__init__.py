"""What a policy writes for questions whose answers are known, and how confident it is in these answers."""

from nrt_lightning.evaluation.evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
