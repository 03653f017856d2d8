"""Where MLflow is: a password in the address is refused before anything runs, and not repeated."""

import pytest

from finetune.config.compose import validate
from finetune.errors import ConfigError
from tests.conftest import Compose


def test_a_password_in_the_address_is_refused_without_repeating_it(compose: Compose) -> None:
    values = compose().model_dump()
    values["tracking"]["uri"] = "https://ann:s3cret@mlflow.example.org"
    with pytest.raises(ConfigError) as refused:
        validate(values)
    assert "tracking.uri" in str(refused.value)
    assert "MLFLOW_TRACKING_PASSWORD" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("uri", ["https://mlflow.example.org:5000/team", "sqlite:///own.db", "postgresql://ann@db/mlflow"])
def test_addresses_without_one_are_taken(compose: Compose, uri: str) -> None:
    assert compose(f"tracking.uri='{uri}'").tracking.uri == uri
