"""The scans of Mamba and Mamba-2: one function each, with several implementations."""
