"""Where Hydra looks for launchers and sweepers."""
