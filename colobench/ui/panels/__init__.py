"""Panels: buttons and views around a pair."""
