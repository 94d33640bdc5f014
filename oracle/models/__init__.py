"""Language models: loading, and the adapter that runs their layers individually.

Only this package accesses internals of the transformers library.
"""

from oracle.models.decoder import Decoder
from oracle.models.loading import LanguageModel, load_model, load_tokenizer
from oracle.models.truncate import truncated

__all__ = ["Decoder", "LanguageModel", "load_model", "load_tokenizer", "truncated"]
