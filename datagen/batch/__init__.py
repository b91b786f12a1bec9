"""A provider's batch interface: files of requests, sent once, looked at until they end, brought in."""
