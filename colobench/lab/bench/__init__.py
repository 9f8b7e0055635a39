"""Benchmark: parts of a checkpoint, each next to a reference that is measured in the same run.

`case.py` defines cases and their rows, `timing.py` compares samples, `context.py` has memory and
references for measurements, and `run.py` runs the subjects of `subjects/`.
"""
