"""Loaders: program images, and the processor modes that they expect."""
