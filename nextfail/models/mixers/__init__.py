"""What mixes the places of a sequence, one a file."""
