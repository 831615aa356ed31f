"""Finding the CRF's parameters on photos, and finding out whether they help on others."""
