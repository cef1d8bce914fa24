"""Running a model on a scan."""
