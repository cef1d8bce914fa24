"""What people see of a run: pictures and one self-contained page per subject."""
