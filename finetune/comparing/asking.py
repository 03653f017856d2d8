"""MLflow asked, by a process of its own: in which environments some stages were made; and how it is asked.

    python -m finetune.comparing.asking     address, experiment and hashes of entries of dvc.lock as a line of JSON → tags of each as JSON

It imports MLflow and next to nothing else, because whoever compares waits for it.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient


def connect(uri: str, experiment: str) -> tuple[Any, str | None, str | None]:
    """MLflow's client; the id of an experiment, None where there is none of that name; and why MLflow can't be asked, None where it can."""
    try:
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
    except MlflowException as error:
        said = str(error).partition("\n")[0]
        return None, None, f"MLflow at {uri} can't be asked: {said}"
    return client, None if found is None else found.experiment_id, None


def environments(uri: str, experiment: str, entries: Sequence[str]) -> tuple[dict[str, dict[str, str]], str | None]:
    """Hash of an entry of dvc.lock → tags of the latest run that made it and noted its environment; and why there are none."""
    client, found, trouble = connect(uri, experiment)
    if found is None:
        return {}, trouble or f"MLflow has no experiment {experiment}"
    tags = {}
    for entry in entries:
        noted = [run.data.tags for run in search(client, found, f"tags.`dvc.entry` = '{entry}'") if "environment" in run.data.tags]
        if noted:
            tags[entry] = noted[0]
    return tags, None


def search(client: Any, experiment: str, condition: str) -> list[Any]:
    """At most ten runs that fulfil a condition, the latest first."""
    return list(client.search_runs([experiment], condition, order_by=["attributes.start_time DESC"], max_results=10))


if __name__ == "__main__":
    print(json.dumps(environments(*json.loads(sys.stdin.readline()))))
