"""The claims of "The Pitfalls of Next-Token Prediction", one by one, held against runs."""
