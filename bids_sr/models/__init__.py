"""Networks and interpolators that give intensities at points."""
