"""The benchmark: measurements of colobench, each beside its reference, taken in the same run.

`case.py` says what a case and its row are, `timing.py` how two things are compared, `context.py`
what cases measure with, and `run.py` runs them. The other modules are one subject each.
"""
