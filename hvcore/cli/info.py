"""`hvcore info`: what this build executes, and the defaults of the machine."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from hvcore import __version__
from hvcore._native.decoder import FORM_COUNT, FORM_FEATURES, MNEMONICS
from hvcore._native.engine import is_implemented
from hvcore.cli import DEFAULT_MEMORY, DEFAULT_PROCESSORS
from hvcore.enums import Hypercall

_BASELINE = "x86-64"
_FIRST_FORM = 1
"""Number 0, of forms and of mnemonics, is the invalid instruction."""


def info(options: Namespace) -> int:
    """The command; returns the exit status."""
    facts = _facts()
    if options.json:
        print(json.dumps(facts, indent=2, sort_keys=True))
        return 0
    instructions = facts["instructions"]
    print(f"hvcore {facts['version']}")
    print(
        f"instructions  {instructions['executed']} of {instructions['forms']} forms in the table, "
        f"{instructions['mnemonics']} mnemonics"
    )
    for feature, counts in instructions["features"].items():
        print(f"  {feature:<12}{counts['executed']:>4} of {counts['forms']}")
    print(f"hypercalls    {len(facts['hypercalls'])} in Python: {', '.join(facts['hypercalls'])}")
    print(f"machine       {facts['defaults']['memory']} of RAM, {facts['defaults']['processors']} logical processors")
    return 0


def _facts() -> dict[str, Any]:
    forms = range(_FIRST_FORM, FORM_COUNT)
    features: dict[str, dict[str, int]] = {}
    for form in forms:
        for feature in FORM_FEATURES[form].split() or [_BASELINE]:
            counts = features.setdefault(feature, {"forms": 0, "executed": 0})
            counts["forms"] += 1
            counts["executed"] += is_implemented(form)
    return {
        "version": __version__,
        "instructions": {
            "forms": len(forms),
            "executed": sum(is_implemented(form) for form in forms),
            "mnemonics": len(MNEMONICS) - _FIRST_FORM,
            "features": features,
        },
        "hypercalls": [call.name for call in Hypercall],
        "defaults": {"memory": DEFAULT_MEMORY, "processors": DEFAULT_PROCESSORS},
    }
