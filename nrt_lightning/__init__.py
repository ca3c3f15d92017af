"""Native Reasoning Training on PyTorch Lightning: language models learn to reason from question-answer pairs alone."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Names are imported when they are asked for: `import nrt_lightning.losses` loads torch and nothing else.
EXPORTS = {
    "advantages": (
        "AdvantageEstimator BatchNormalized ClippedAdvantages GroupNormalized LeaveOneOut MaxRL MultiSampleBound"
    ),
    "callbacks": (
        "AheadRollout AnswerHeatMap BenchmarkEvaluation BestAndLast CheckLongest Dashboard DifficultyGain "
        "ExportPolicy Hyperparameters NonFiniteGuard OnPolicyRollout PredictionWriter ProgressLines ResultsFile "
        "RewardCorrectness RunHistory RunReport SaveOnSignal SelfAssessment StepAxis TraceSamples ValidationTable"
    ),
    "callbacks.collapse": (
        "CollapseAction CollapseDetector CollapseSign EmptyTraces LostGain LostMarker LowerLearningRate "
        "RestoreCheckpoint SameAnswers StopTraining TemplateTraces UnfinishedResponses WorthlessCertainty"
    ),
    "data": (
        "ChatTemplate FileSource Messages PlainTemplate PromptCompletion QADataModule QASource QuestionAnswer "
        "TextBatches"
    ),
    "errors": "InputError",
    "evaluation": "AnswerSettings pass_at_k",
    "export": "AdapterFiles ExportForm Merged WholeModel export_policy",
    "filters": "DifficultyBandFilter EMADeviationFilter GroupFilter MinimumSpreadFilter ZeroVarianceFilter",
    "losses": (
        "AdaptiveEntropyBonus CISPO ClippedRatio ClippedSequenceRatio EntropyBonus HybridImportance "
        "HybridSequenceImportance LossInputs MaskedImportance MaskedSequenceImportance NRTLoss PolicyGradient "
        "SamplerCorrection TruncatedImportance TruncatedSequenceImportance"
    ),
    "models": (
        "Adapter AdapterDisabledReference BaselineScorer BestScoring EMAReference FourBit FrozenReference "
        "InitialBaseline LoRA NoReference PackedGroups Policy PolicyBaseline PromptCopies PromptTree "
        "Quantization QuantizedReference Reference ReferenceBaseline SharedPrompt"
    ),
    "rewards": (
        "ArithmeticMean DerivedTokenWeights FixedTokenWeights GeometricMean KLPenalty KeepOverlong LogProb "
        "MaskOverlong MeanLogProb OverlongTraces PenalizeOverlong PosteriorTokenWeights Prob RewardAggregator "
        "TwiceTheMean WeightedSum"
    ),
    "rollouts": "RolloutEngine TransformersEngine",
    "rollouts.segmentation": "AtText EveryTokens Lines Segmentation Sentences",
    "training.conditioned": "AnswerConditioned FallingShare FixedShare LeakGuard Share ShareByReward",
    "rollouts.vllm": "AdapterSync VLLMColocatedEngine VLLMServerEngine WeightSync WeightsSync",
    "training": "Method",
    "training.steps": "StepGains",
    "modules": "ConstantSchedule CosineSchedule LinearSchedule NRTModule SFTModule Schedule",
    "signals": (
        "AnswerConfidence AnswerLength AnswerMatch AnswerShare ChoiceLetter ExactMatch Format FunctionSignal "
        "GainOverBaseline GeometricMeanOfSignals GroupNormalizedSum LengthPenalty MajorityVote MatchFirst MathVerify "
        "NegativeEntropy NumericMatch OwnLogProb PerplexityRank ReasoningEfficiency ReasoningGymScore "
        "ReasoningReflection Repetition RolloutEvidence RolloutSignal RolloutText ScoreEvidence ScoreSignal "
        "SelfCertainty Signal SignalCombiner TextSignal TokenF1 WeightedSumOfSignals"
    ),
    "structures": "Prompts Rollouts Row Sampling Scores TraceReward",
    "tasks": (
        "ChainSumCorpus PointerChasing PointerCorpus ReasoningGymSource RegisterCorpus RegisterPrograms ReportCorpus "
        "SloppyReports"
    ),
}
HOMES = {name: module for module, names in EXPORTS.items() for name in names.split()}
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *HOMES]
