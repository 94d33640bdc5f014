"""The store: run folders on disk. Knows no algorithm."""

from oracle.store.provenance import git_commit, versions
from oracle.store.run import Run, RunWriter, check_free

__all__ = ["Run", "RunWriter", "check_free", "git_commit", "versions"]
