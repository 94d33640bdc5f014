"""The command line of lm-evaluation-harness with the model `layer-oracle`."""

import sys

from lm_eval.__main__ import cli_evaluate

import oracle.lm_eval
from oracle.errors import InputError

if __name__ == "__main__":
    assert oracle.lm_eval.NAME, "importing the package registers the model"
    try:
        cli_evaluate()
    except InputError as error:
        sys.exit(f"oracle.lm_eval: error: {error}")
