"""Hydra plugins: launchers and sweepers."""
