"""Medical instruction data: synthesised through OpenAI-compatible services, filtered and published.

Importing this package is cheap: each public name is imported from its module when it is first used.

Example:
    >>> import datagen
    >>> teacher = datagen.Service("http://127.0.0.1:8000/v1", "my-model")
    >>> datagen.plan_synthesis("work", teacher=teacher, target=120).estimate.tasks.requests
    13
"""

from datagen.lazy import import_lazily

import_lazily(__name__, __file__)
