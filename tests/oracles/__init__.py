"""Oracles: sources of truth that hvcore's answers are held against in tests."""
