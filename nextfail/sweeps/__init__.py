"""Sweeps: planning jobs, running them on a backend, and reporting how they ended."""
