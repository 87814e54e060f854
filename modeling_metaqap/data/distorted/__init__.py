"""Distorted images of pristine photographs with pseudo opinion scores: building, loading, drawing on the fly."""
