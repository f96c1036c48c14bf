"""Run folders: identity, lock, state and records. Imports neither torch nor lightning."""
