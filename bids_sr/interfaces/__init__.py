"""One thin nipype interface per stage: read files, call the core once, write files."""
