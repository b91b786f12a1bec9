"""Evaluation of answers: a judge's verdicts, scores with intervals, and overlap with reference answers."""
