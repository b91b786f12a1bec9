"""One OpenAI-compatible service: the wire, its limits, and single requests asked with bounded tries."""
