"""Export: merged weights, the proof that they say what the tuned model says, manifest and model card."""
