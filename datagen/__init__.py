"""Medical instruction data: synthesised through OpenAI-compatible services, filtered and published.

Importing this package is cheap: each public name is imported from its module when it is first used.

Example:
    >>> import datagen
    >>> teacher = datagen.Service("http://127.0.0.1:8000/v1", "my-model")
    >>> datagen.plan_synthesis("work", teacher=teacher, target=120).estimate.tasks.requests
    13
"""

from datagen.lazy import import_lazily

_PUBLIC = {
    "BatchLimits": "batch.files",
    "BatchesUnderWay": "batch.client",
    "ConfigError": "errors",
    "DataError": "errors",
    "Funnel": "synthesize",
    "Instruction": "records",
    "Response": "records",
    "Sampling": "service.chat",
    "SeedTask": "records",
    "Service": "service.endpoint",
    "ServiceError": "errors",
    "Settings": "settings",
    "UserError": "errors",
    "Verdict": "records",
    "cancel_batches": "api",
    "derive": "api",
    "filter": "filtering",
    "plan_synthesis": "api",
    "publish": "publish",
    "read_records": "records",
    "status": "api",
    "synthesize": "api",
    "write_records": "records",
}
"""Public name -> module."""

__all__ = sorted(_PUBLIC)

import_lazily(__name__, _PUBLIC)
