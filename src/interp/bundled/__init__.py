"""The small trained model that ships with the package: see ``CARD.md`` beside this file."""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""Folder with weights, configuration and tokenizer, as `transformers` reads them."""

FEATURES = Path(__file__).parent / "features"
"""Folder with dictionaries of features of that model, in SAELens' format."""
