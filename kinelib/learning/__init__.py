"""What every system shares: layers, image encoders, the one training loop, checkpoint folders and profiles."""
