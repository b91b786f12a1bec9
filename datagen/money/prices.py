"""What models' tokens cost: the list prices that this package knows, and the user's own."""

import dataclasses
import datetime
import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml

from datagen.configuration import Range, check, find_problems, refuse
from datagen.decoding import read_yaml_mapping
from datagen.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Price:
    """What one model's tokens cost.

    Attributes:
        input: US dollars per million prompt tokens.
        output: US dollars per million completion tokens.
        batch_discount: Part of the price that is waived in batch mode, 0 to 1; 0 where there is none.
        source: Whose list the price is from.
        as_of: Date of that list, ISO 8601.
    """

    input: Annotated[float, Range(0, 1_000_000)]
    output: Annotated[float, Range(0, 1_000_000)]
    batch_discount: Annotated[float, Range(0, 1)] = 0.0
    source: str = ""
    as_of: str = ""

    def __post_init__(self) -> None:
        check(self)


class Prices(dict[str, Price]):
    """The prices of models, by the exact name under which a model is asked.

    Names are not matched by their beginnings: snapshots of one model often have prices of their own.

    Example:
        >>> prices = Prices({"m": Price(input=1.0, output=4.0, batch_discount=0.5)})
        >>> prices.cost("m", 1_000_000, 500_000)
        3.0
        >>> prices.cost("m", 1_000_000, 500_000, batch=True)
        1.5
        >>> prices.cost("another", 1, 1) is None
        True
    """

    @classmethod
    def listed(cls) -> Self:
        """Return the public list prices that this package knows (``prices.yaml``)."""
        source = importlib.resources.files("datagen.money").joinpath("prices.yaml")
        return cls.from_mapping(yaml.safe_load(source.read_text(encoding="utf-8")), "prices.yaml")

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a YAML file of prices.

        Raises:
            ConfigError: The file is missing, is not YAML, or holds an impossible price.
        """
        return cls.from_mapping(read_yaml_mapping(path), str(path))

    @classmethod
    def from_mapping(cls, data: object, where: str) -> Self:
        """Read prices from ``{model: {input, output}}``, or from the same under a key ``models``.

        Args:
            data: The mapping; every price may also have ``batch_discount``, ``source`` and ``as_of``.
            where: Where it stands, for messages.

        Raises:
            ConfigError: Anything that is no price; all of them are named.
        """
        models = data.get("models", data) if isinstance(data, Mapping) else data
        if not isinstance(models, Mapping):
            raise ConfigError(
                "prices must be a mapping of models", where=where, found=type(models).__name__, remedy=_HOW_TO
            )
        entries = {str(model): _plain(entry) for model, entry in models.items()}
        problems = []
        for model, entry in entries.items():
            problems += find_problems(Price, entry, f"{model}.")
            problems += [f"{model}.{key} is missing" for key in ("input", "output") if key not in entry]
        refuse(problems, where)
        return cls({model: Price(**entry) for model, entry in entries.items()})

    def over(self, below: "Prices") -> "Prices":
        """Return these prices laid over others."""
        return Prices(below | self)

    def cost(
        self, model: str, prompt_tokens: int, completion_tokens: int, *, batch: bool = False
    ) -> float | None:
        """Return what so many tokens of a model cost, in US dollars; None where its price is not known."""
        price = self.get(model)
        if price is None:
            return None
        cost = (prompt_tokens * price.input + completion_tokens * price.output) / 1e6
        return cost * (1 - price.batch_discount) if batch else cost

    def require(self, *models: str) -> None:
        """See that every model has a price.

        Raises:
            ConfigError: Some have none, so no cap could be kept.
        """
        missing = sorted({model for model in models if model not in self})
        if missing:
            raise ConfigError(
                "prices: a budget needs the price of every model that is asked",
                found=f"no price for {', '.join(missing)}",
                expected="US dollars per million tokens, also for a model that costs nothing (0)",
                remedy=_HOW_TO,
            )


_HOW_TO = (
    "write a file with a line for each model, such as `my-model: {input: 0.5, output: 1.5}` "
    "(US dollars per million tokens), and name the file in `prices`; a config may hold the lines themselves"
)


def _plain(entry: Any) -> dict[str, Any]:
    """Return a price's values, with an unquoted YAML date as a string; {} if it is not a mapping."""
    values = entry if isinstance(entry, Mapping) else {}
    return {key: str(value) if isinstance(value, datetime.date) else value for key, value in values.items()}
