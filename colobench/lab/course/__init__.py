"""The course: exercises that are checked, predictions that are scored, scores, and the glossary."""
