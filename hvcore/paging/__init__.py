"""Page tables without a guest, and translation of arrays of addresses. See docs/translation.md.

Models of translation hardware and traces are found here, too; their home is `hvcore.experiments`.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from hvcore.lazy import attributes

if TYPE_CHECKING:
    from hvcore.experiments.models import TranslationModel
    from hvcore.experiments.traces import read_trace
    from hvcore.paging.results import Runs, Translation, Translations, TranslationStatus
    from hvcore.paging.saved import SavedAddressSpace
    from hvcore.paging.space import AddressSpace
    from hvcore.paging.state import PagingState

__all__ = [
    "AddressSpace",
    "PagingState",
    "Runs",
    "SavedAddressSpace",
    "Translation",
    "TranslationModel",
    "TranslationStatus",
    "Translations",
    "read_trace",
]

if not TYPE_CHECKING:  # checkers know the names by the imports above, and misspelt ones as wrong
    __getattr__, __dir__ = attributes(
        __name__,
        {
            "AddressSpace": "space:AddressSpace",
            "PagingState": "state:PagingState",
            "Runs": "results:Runs",
            "SavedAddressSpace": "saved:SavedAddressSpace",
            "Translation": "results:Translation",
            "TranslationModel": ".experiments.models:TranslationModel",
            "TranslationStatus": "results:TranslationStatus",
            "Translations": "results:Translations",
            "read_trace": ".experiments.traces:read_trace",
        },
    )
