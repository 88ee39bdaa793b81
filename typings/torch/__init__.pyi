# What engines/worker.py and its tests use of an extra that a type checker need not have.
from collections.abc import Iterator

__version__: str

class dtype:
    itemsize: int

float32: dtype
bfloat16: dtype
float16: dtype

def manual_seed(seed: int) -> Generator: ...

class OutOfMemoryError(RuntimeError): ...

class Generator:
    def __init__(self, device: str) -> None: ...
    def manual_seed(self, seed: int) -> Generator: ...

class Tensor:
    def numel(self) -> int: ...
    def element_size(self) -> int: ...

class nn:
    class Module:
        def parameters(self) -> Iterator[Tensor]: ...

class cuda:
    @staticmethod
    def is_available() -> bool: ...
    @staticmethod
    def is_bf16_supported() -> bool: ...
    @staticmethod
    def mem_get_info() -> tuple[int, int]: ...

class xpu:
    @staticmethod
    def is_available() -> bool: ...

class backends:
    class mps:
        @staticmethod
        def is_available() -> bool: ...
