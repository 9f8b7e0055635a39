"""What all views and panels are made of: feeds, figures, panels, controls."""
