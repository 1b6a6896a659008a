"""What the recorder does at each step of a training loop."""
