from datagen.records import SeedTask
from datagen.statistics import count_labels


def test_difficulties_stand_in_the_order_of_numbers_also_beyond_five() -> None:
    tasks = [SeedTask("a", difficulty=level) for level in ("10", "2", "hard to say", "2", "1")]
    shown = [name for name, _ in count_labels("difficulty", tasks)["top"]]
    assert shown[:3] == ["1", "2", "10"]
    assert len(shown) == 4
