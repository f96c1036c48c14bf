"""Objectives and models that a report lists first, in this order; others follow by name."""

# Okabe and Ito's palette, with vermillion reserved for hard or wrong tokens in all figures, and some of Tol's
OBJECTIVES = {
    "teacher_forcing": "#E69F00",
    "reverse": "#0072B2",
    "teacherless": "#009E73",
    "multi_token": "#56B4E9",
    "token_order": "#332288",
    "next_latent": "#882255",
    "future_summary": "#999933",
    "belief_state": "#AA4499",
    "any_order": "#117733",
    "token_masking": "#DDCC77",
    "scratchpad": "#88CCEE",
    "first_hop_only": "#CC79A7",
}
"""Colour of each objective."""

MODELS = {"transformer": "o", "mamba": "s", "mamba2": "D", "hybrid": "^"}
"""Marker of each model."""
