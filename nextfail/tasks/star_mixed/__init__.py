"""Star graphs whose paths differ in length."""
