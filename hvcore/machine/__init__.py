"""The hardware that the root partition owns: small devices on one bus interface."""
