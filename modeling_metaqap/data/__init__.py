"""Image quality data sets, the 25 distortions, and distorted images with pseudo opinion scores."""
