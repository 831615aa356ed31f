"""Several runs side by side: what `segment.report` and the notebooks show."""

from segment.comparison.differences import Comparison, compare
from segment.comparison.reading import load_runs
from segment.comparison.runs import Run, Unfinished

__all__ = ["Comparison", "Run", "Unfinished", "compare", "load_runs"]
