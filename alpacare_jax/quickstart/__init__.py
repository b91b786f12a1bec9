"""The whole path on a laptop: a real small model as teacher and as the model that is fine-tuned."""
