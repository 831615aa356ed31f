"""W&B's sweep files without W&B's server: what `python -m segment.sweep` stands on."""
