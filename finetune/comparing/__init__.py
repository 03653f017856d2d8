"""Two runs side by side: settings, data, code, environment and scores, and how much of a difference is chance."""
