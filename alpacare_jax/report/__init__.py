"""The report: one self-contained HTML page about a run."""

from alpacare_jax.report.inputs import AnswerComparison, ComparisonRow, ReportInputs, loss_rows
from alpacare_jax.report.page import render, render_synthesis

__all__ = ["AnswerComparison", "ComparisonRow", "ReportInputs", "loss_rows", "render", "render_synthesis"]
