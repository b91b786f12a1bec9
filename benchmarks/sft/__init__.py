"""The parts of ``gpu_sft.py``: the rows, this stack's side, and that of transformers on torch."""
