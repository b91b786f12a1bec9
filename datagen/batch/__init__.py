"""Batch mode: submits files of requests to a provider's batch API, polls them and collects the results."""
