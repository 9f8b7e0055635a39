"""Views: each shows records or pages, live or still."""
