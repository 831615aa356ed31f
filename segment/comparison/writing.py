"""The files of a report."""

from collections.abc import Sequence
from pathlib import Path

from segment.comparison.differences import Comparison
from segment.comparison.runs import Run, Unfinished
from segment.comparison.tables import (
    classes_table,
    differences_table,
    literal,
    markdown,
    scores_markdown,
    scores_table,
)
from segment.comparison.words import MIOU, figure, findings, headline_level


def write_report(
    out: Path,
    runs: Sequence[Run],
    unfinished: Sequence[Unfinished],
    comparisons: Sequence[Comparison],
    root: Path | None,
) -> None:
    """Write everything.

    Args:
        out: An empty folder.
        runs: The runs.
        unfinished: Those without scores, which are listed.
        comparisons: What `compare` found.
        root: Folder of the photos; None: where each run's config.yaml has it.
    """
    scores_table(runs).to_csv(out / "scores.csv", index=False)
    classes_table(runs).to_csv(out / "classes.csv", index=False)
    differences_table(comparisons).to_csv(out / "differences.csv", index=False)
    (out / "report.md").write_text(summary(runs, unfinished, comparisons), encoding="utf-8")


def summary(
    runs: Sequence[Run], unfinished: Sequence[Unfinished], comparisons: Sequence[Comparison]
) -> str:
    """The report as Markdown: findings, the comparison table, and every difference in mean IoU."""
    level = headline_level(comparisons)
    heads = ["labels", "first", "second", "difference in mean IoU", "p, Holm", "shown"]
    rows = [
        [
            one.kind,
            literal(one.first.name),
            literal(one.second.name) if one.second is not one.first else "-",
            figure(one, MIOU),
            f"{one.holm[MIOU]:.3g}",
            {1: "higher", -1: "lower", 0: "no"}[one.verdict(MIOU)],
        ]
        for one in comparisons
        if one.level == level
    ]
    lines = [
        "# Runs compared",
        "",
        *(f"- {literal(text)}" for text in findings(comparisons)),
        "",
        *(f"- Left out: {literal(str(o.folder))}: {literal(o.reason)}" for o in unfinished),
        *([""] if unfinished else []),
        scores_markdown(scores_table(runs)),
        "",
        "## Which differences are real",
        "",
        "Paired bootstrap over photos; Holm's correction over all comparisons of a measure.",
        "",
        markdown(heads, rows),
        "",
    ]
    return "\n".join(lines)
