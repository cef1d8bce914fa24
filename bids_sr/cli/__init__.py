"""Command lines: words in, one frozen `Config` out."""
