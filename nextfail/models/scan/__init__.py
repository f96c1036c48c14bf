"""The selective scan of Mamba: one function, and the forms in which it can be computed."""
