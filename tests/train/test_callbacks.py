"""Figures reach TensorBoard from a thread of their own, and its failures reach the run."""

import subprocess
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alpacare_jax.train.callbacks import TensorBoard


def test_every_number_of_every_line_is_in_tensorboard_once_the_sink_is_closed(tmp_path):
    sink = TensorBoard(tmp_path)
    for step in range(1, 6):
        sink({"step": step, "loss": 1 / step, "note": "text"})
    sink({"step": 5, "val_loss": 0.5})
    sink.close()
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert found.Tags()["scalars"] == ["train/loss", "validation/val_loss"]
    assert [event.value for event in found.Scalars("train/loss")] == pytest.approx(
        [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    )
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2, 3, 4, 5]


def test_a_resumed_run_replaces_the_steps_it_runs_again(tmp_path):
    for resume_step, steps in ((0, range(1, 7)), (4, range(5, 7))):
        sink = TensorBoard(tmp_path, resume_step)
        for step in steps:
            sink({"step": step, "loss": float(resume_step)})
        sink.close()
        time.sleep(1.1)  # event files are named by the second
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [
        *((n, 0) for n in range(1, 5)),
        (5, 4),
        (6, 4),
    ]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    sink = TensorBoard(tmp_path / "file")
    sink({"step": 1, "loss": 1.0})
    with pytest.raises(OSError, match="file"):
        sink.close()


def test_nothing_is_imported_before_the_first_line(tmp_path):
    program = "\n".join(
        (
            "import sys",
            "from pathlib import Path",
            "from alpacare_jax.train import callbacks",
            f"folder = Path({str(tmp_path)!r})",
            "written = [callbacks.JsonLines(folder / 'a.jsonl'), callbacks.TensorBoard(folder / 'b')]",
            "slow = {'torch', 'tensorboardX', 'transformers', 'tensorflow', 'torchvision'} & set(sys.modules)",
            "assert not slow, slow",
            "[each.close() for each in written]",
        )
    )
    subprocess.run([sys.executable, "-c", program], check=True)
