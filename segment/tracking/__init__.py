"""Weights & Biases: what a run logs, and where it lands."""

from segment.tracking.photos import LogPredictions
from segment.tracking.scores import LogRun, log_evaluation
from segment.tracking.tracker import Tracker, tracker_of, why_offline

__all__ = ["LogPredictions", "LogRun", "Tracker", "log_evaluation", "tracker_of", "why_offline"]
