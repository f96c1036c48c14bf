"""The claims of "The Pitfalls of Next-Token Prediction", each tested against runs."""
