# What engines/worker.py uses of an extra that a type checker need not have.
from collections.abc import Sequence
from typing import Literal, overload

from . import constants as constants
from . import errors as errors

class RepoSibling:
    rfilename: str
    size: int | None

class ModelInfo:
    siblings: list[RepoSibling] | None

class DryRunFileInfo:
    file_size: int
    will_download: bool

class HfApi:
    def model_info(self, repo_id: str, *, files_metadata: bool) -> ModelInfo: ...

def hf_hub_download(repo_id: str, filename: str, *, local_files_only: bool = False) -> str: ...
@overload
def snapshot_download(
    repo_id: str,
    *,
    allow_patterns: Sequence[str] | None = None,
) -> str: ...
@overload
def snapshot_download(
    repo_id: str,
    *,
    allow_patterns: Sequence[str] | None = None,
    dry_run: Literal[True],
) -> list[DryRunFileInfo]: ...
