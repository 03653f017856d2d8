"""Evaluation: greedy answers, likelihoods, metrics, and intervals round every score."""
