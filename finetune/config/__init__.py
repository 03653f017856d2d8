"""Settings: their types and limits, conf/ → params.yaml, and how a stage gets its own."""
