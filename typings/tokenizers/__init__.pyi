# What tests/harness/tiny_models.py uses of an extra that a type checker need not have.
from typing import Any

from . import models as models
from . import pre_tokenizers as pre_tokenizers
from . import processors as processors

class Tokenizer:
    pre_tokenizer: Any
    post_processor: Any
    def __init__(self, model: models.WordLevel) -> None: ...
