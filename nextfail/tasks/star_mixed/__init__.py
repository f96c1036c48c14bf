"""Star graphs with mixed path lengths."""
