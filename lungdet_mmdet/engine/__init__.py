"""What runs a training: registered hooks, precision and processes, where it starts from."""
