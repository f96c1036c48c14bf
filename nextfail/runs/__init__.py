"""Run folders: identity, state, collection, reports. Imports neither torch nor lightning."""
