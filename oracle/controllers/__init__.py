"""Controllers: what decides, at generation time, which layers run."""

from oracle.controllers.replay import OracleController, Policy

__all__ = ["OracleController", "Policy"]
