"""The tiny base model, for tests that ask a model something."""

from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.models import loaders
from finetune.models.base import load_tokenizer
from tests.conftest import composed


@pytest.fixture
def model(workspace: Path) -> PreTrainedModel:
    return loaders.load(composed("experiment=tiny").model)


@pytest.fixture
def tokenizer(workspace: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(composed("experiment=tiny").model)
