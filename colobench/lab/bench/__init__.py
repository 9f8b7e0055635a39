"""The benchmark: each of colobench's figures beside its reference, measured in the same run.

`case.py` says what a case and its row are, `timing.py` how two things are compared, `context.py`
what cases measure with, and `run.py` runs them. The other modules are one subject each.
"""
