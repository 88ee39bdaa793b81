# What engines/worker.py and its tests use of an extra that a type checker need not have.
from typing import Any

class CLIPTextConfig:
    def __init__(self, **values: Any) -> None: ...

class T5Config:
    def __init__(self, **values: Any) -> None: ...

class CLIPTextModel:
    def __init__(self, config: CLIPTextConfig) -> None: ...

class T5EncoderModel:
    def __init__(self, config: T5Config) -> None: ...

class CLIPTokenizer:
    def __init__(self, **values: Any) -> None: ...

class PreTrainedTokenizerFast:
    def __init__(self, **values: Any) -> None: ...

class utils:
    class logging:
        @staticmethod
        def set_verbosity_error() -> None: ...
        @staticmethod
        def disable_progress_bar() -> None: ...
