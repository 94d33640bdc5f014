"""Names of options and of the settings that they give, where these differ. Imports nothing, for help texts."""

__all__ = ["OPTIONS"]

OPTIONS = {
    "prompt-column": "columns_prompt",
    "template": "columns_template",
    "reference-column": "columns_references",
    "reference-file": "reference_files",
    "choices-column": "columns_choices",
    "choices-as": "columns_choices_as",
    "labels-column": "columns_labels",
    "answer-column": "columns_answer",
    "answer-as": "columns_answer_as",
    "id-column": "columns_id",
    "task-column": "columns_task",
    "format": "layout_format",
    "separator": "layout_separator",
    "records": "layout_records",
    "cells": "layout_cells",
    "num-fewshot": "task_options_num_fewshot",
    "fewshot-seed": "task_options_fewshot_seed",
    "apply-chat-template": "task_options_apply_chat_template",
    "include-path": "task_options_include_path",
    "template-arg": "template_args",
}
"""Options whose setting has another name: option -> flat name."""
