"""Published claims, tested against runs."""
