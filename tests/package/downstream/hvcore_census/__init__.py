"""Counts instructions with the decoder of hvcore, from Cython."""
