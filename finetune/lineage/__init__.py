"""From a model back to all that it was made of, and from a raw file on to all its models, by what MLflow, git and DVC know."""
