"""Models: where weights come from and what pins them, loaders, adapters, scoring."""
