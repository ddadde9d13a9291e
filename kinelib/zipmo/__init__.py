"""ZipMo: point tracks to timeless latents and back, and latents drawn by flow matching from a frame and pokes."""
