"""Training: seeding, settings, the two trainers and what they share."""
