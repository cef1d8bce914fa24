"""Learning a model from scans."""
