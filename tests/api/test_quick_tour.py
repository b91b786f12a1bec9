"""The quick tour runs as it stands, on a tiny model."""

import runpy
import sys

import alpacare_jax as alpacare


def test_the_quick_tour_trains_and_exports(repository, tiny, tasks, tmp_path, monkeypatch, capsys):
    tour = repository / "examples" / "quick_tour.py"
    assert len(tour.read_text().splitlines()) <= 25
    monkeypatch.setattr(sys, "argv", ["quick_tour.py", str(tiny), str(tasks), str(tmp_path / "out")])
    monkeypatch.setenv("ALPACARE_CACHE", str(tmp_path / "cache"))
    runpy.run_path(str(tour))
    assert capsys.readouterr().out.count("\n") >= 2, "two replies"
    assert alpacare.load(tmp_path / "out").logits([[2, 3]]).shape == (1, 2, 264)
