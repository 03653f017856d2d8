"""Where MLflow is: a password in the address is refused before anything runs, and not repeated."""

import pytest

from finetune.config.compose import validate
from finetune.errors import ConfigError
from tests.conftest import Compose


@pytest.mark.parametrize(
    "uri",
    [
        "https://ann:s3cret@mlflow.example.org",
        "https://ann:s3%2Fs3cret@mlflow.example.org",
        "https://ann%40example.org:s3cret@mlflow.example.org",
        "HTTPS://ann@example.org:s3cret@mlflow.example.org",
        "https://ann:s3/s3cret@mlflow.example.org",
        "https://mlflow.example.org?password=s3cret",
        "postgresql://ann:s3/c#r?s3cret@db/mlflow",
        "postgresql://db/mlflow?user=ann&password=s3cret",
        "mysql://db/mlflow?PASSWD=s3cret",
        "mysql://db/mlflow?pwd=s3cret&user=ann",
        "postgresql://db/mlflow?sslpassword=s3cret",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dodbc%3BPWD%3Ds3cret",
    ],
)
def test_a_password_in_the_address_is_refused_without_repeating_it(compose: Compose, uri: str) -> None:
    values = compose().model_dump()
    values["tracking"]["uri"] = uri
    with pytest.raises(ConfigError) as refused:
        validate(values)
    assert "tracking.uri" in str(refused.value)
    assert "MLFLOW_TRACKING_PASSWORD" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    [
        "https://mlflow.example.org:5000/team",
        "http://[::1]:5000/a@b",
        "https://mlflow.example.org:5000/users/ann@example.org?owner=me@x",
        "sqlite:///own.db",
        "sqlite:////data/a:b@c/own.db",
        "postgresql://ann@db:5432/mlflow?sslmode=require&passfile=.pgpass",
    ],
)
def test_addresses_without_one_are_taken(compose: Compose, uri: str) -> None:
    assert compose(f"tracking.uri='{uri}'").tracking.uri == uri
