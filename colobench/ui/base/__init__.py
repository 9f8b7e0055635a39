"""Building blocks of views and panels: feeds, figures, controls."""
