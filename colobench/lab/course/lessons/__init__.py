"""Lessons: exercises and predictions of each notebook, in a module with the notebook's number."""
