"""The only package that knows how BIDS names its files."""
