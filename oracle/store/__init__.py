"""The store: run folders on disk. Contains no algorithms."""

from oracle.store.log import Log
from oracle.store.provenance import git_commit, versions
from oracle.store.run import Run
from oracle.store.schema import outcomes_of
from oracle.store.writer import RunWriter, check_free

__all__ = ["Log", "Run", "RunWriter", "check_free", "git_commit", "outcomes_of", "versions"]
