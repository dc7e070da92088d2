"""Checks of the house itself: layers, rooms, sizes, stubs, style, generated code, machine code."""
