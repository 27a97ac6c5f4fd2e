"""Training: settings, one step (`trainer`), the loop around it (`loop`), and resuming a run."""
