"""Module `implicit`: what an instruction uses besides its operands, from the words of the table."""
from hvcore._native.facts import Access


def register_uses(instruction):
    return {}


def memory_uses(instruction):
    return []
