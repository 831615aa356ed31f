"""What every test shares: no network, no W&B questions, the same threads."""
