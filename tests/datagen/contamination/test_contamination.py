"""Planted leaks of evaluation items are caught wherever they hide; unrelated questions pass."""

import json
import random
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.contamination import Benchmarks
from datagen.dedup import rouge_l
from datagen.errors import ConfigError, DataError

HEEL = (
    "A 34-year-old carpenter comes to the clinic because of three weeks of burning pain in his left heel worst with "
    "the first steps in the morning. Which structure is most likely inflamed?"
)
EARLY = "What are the early warning signs of lithium poisoning?"
NERVE = "Which of these nerves is hurt?"
NAIL = "How long should a tailor with a splinter under the nail wait before the finger is opened?"
SORT = "Sort the findings by organ."
FINDINGS = "Crackles at both bases, a swollen left calf, and a palpable spleen tip."
ABSTRACT = (
    "We followed eighty bakers for two winters and measured peak flow each morning before and after the first oven "
    "was opened. Flow fell by a tenth in those who sieved flour by hand."
)
BETWEEN = (
    "Footwear matters more than most people think, and the cheapest insole is often good enough. Ask about work on "
    "hard floors. Swelling over the ankle points elsewhere, and so does pain at night."
)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def exam(tmp_path: Path) -> Benchmarks:
    first = [
        {"id": "heel", "question": HEEL, "options": {"A": "Plantar fascia", "B": "Achilles tendon"}},
        {"id": "early", "question": EARLY},
        {"id": "nerve", "question": NERVE, "options": {"A": "Radial nerve", "B": "Ulnar nerve"}},
        {"id": "nail", "question": NAIL},
        {"id": "bakers", "question": "Does sieving harm?", "contexts": [ABSTRACT]},
    ]
    second = [{"instruction": SORT, "input": FINDINGS}]
    return Benchmarks([write(tmp_path / "exam.jsonl", first), write(tmp_path / "sorting.jsonl", second)])


@pytest.mark.parametrize(
    ("instruction", "given", "item", "kind", "field"),
    [
        (HEEL, "", "heel", "ngram", "instruction"),
        (HEEL.upper().replace(",", " - "), "", "heel", "ngram", "instruction"),
        ("Answer.", f"{HEEL}\nA. Achilles tendon\nB. Plantar fascia", "heel", "ngram", "input"),
        ("Summarise.", f"{BETWEEN} {HEEL} {BETWEEN}", "heel", "ngram", "input"),
        (
            "How long should a tailor with a splinter",
            "under the nail wait before the finger is opened?",
            "nail",
            "ngram",
            "task",
        ),
        ("Comment on this study.", f"{BETWEEN} {ABSTRACT[:100]}", "bakers", "ngram", "input"),
        (
            "A 34-year-old carpenter visits the clinic after three weeks of burning pain in the left heel, worst with "
            "the first steps each morning. What structure is probably inflamed?",
            "",
            "heel",
            "rouge-l",
            "instruction",
        ),
        (
            "Comment on this.",
            f"{BETWEEN} A 34-year-old carpenter came to the clinic because of three long weeks of burning pain in his "
            f"right heel worst at the first steps in the morning. Which structure is probably inflamed? {BETWEEN}",
            "heel",
            "rouge-l",
            "input",
        ),
        ("what are the early warning signs of lithium poisoning", "", "early", "whole-text", "instruction"),
        ("List the early warning signs of lithium poisoning.", "", "early", "whole-text", "instruction"),
        ("Answer.", f"Doctor, {EARLY.lower()} Thank you.", "early", "whole-text", "input"),
        (NERVE, "A) Ulnar nerve  B) Radial nerve", "nerve", "whole-text", "instruction"),
        (SORT, FINDINGS, "sorting.jsonl:1", "ngram", "input"),
        (SORT, f"The findings are: {FINDINGS}", "sorting.jsonl:1", "ngram", "input"),
        ("Does sieving harm?", "", "bakers", "whole-text", "instruction"),
    ],
)
def test_a_planted_task_is_caught(
    exam: Benchmarks, instruction: str, given: str, item: str, kind: str, field: str
) -> None:
    leak = exam.check_task(instruction, given)
    assert leak is not None
    assert (leak.item, leak.kind, leak.field) == (item, kind, field)
    if kind == "ngram":
        assert len(leak.evidence.split()) == 13
        assert leak.score is None
    if kind == "rouge-l":
        assert leak.score is not None
        assert leak.score > 0.7


@pytest.mark.parametrize(
    "answer", [f"As an example: {HEEL} It is the fascia.", f"{BETWEEN} {ABSTRACT}", f"They asked: {EARLY}"]
)
def test_a_planted_answer_is_caught(exam: Benchmarks, answer: str) -> None:
    leak = exam.check_answer(answer)
    assert leak is not None
    assert leak.field == "answer"


@pytest.mark.parametrize(
    ("instruction", "given"),
    [
        (
            "A 34-year-old carpenter comes to the ward because of three weeks of itching in his left palm.",
            "",
        ),
        ("What are the early warning signs of lead poisoning?", ""),
        ("What are the late signs of lithium poisoning?", ""),
        (NERVE, "A) Femoral nerve  B) Sciatic nerve"),
        (NERVE, ""),
        (SORT, "A rash on both shins and a sore throat."),
        ("Does smoking harm?", ""),
        ("Explain to a baker why flour dust narrows the airways.", BETWEEN),
        ("", ""),
    ],
)
def test_other_tasks_pass(exam: Benchmarks, instruction: str, given: str) -> None:
    assert exam.check_task(instruction, given) is None
    assert exam.check_answer(f"{instruction} {given}") is None


def test_paraphrases_are_exactly_those_above_the_threshold(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = HEEL.split()
    path = write(tmp_path / "exam.jsonl", [{"question": HEEL}])
    for threshold in (0.6, 0.8):
        exam = Benchmarks([path], rouge_l=threshold)
        found = Counter[bool]()
        for rate in range(60):
            changed = [f"w{draw.randrange(9**9)}" if draw.random() < rate / 60 else word for word in words]
            leak = exam.check_task(" ".join(changed))
            near = rouge_l(HEEL, " ".join(changed)) > threshold
            assert (leak is not None and leak.kind == "rouge-l") == near or (leak and leak.kind == "ngram")
            found[near] += 1
        assert min(found.values()) > 5


def test_exam_language_alone_is_no_leak(tmp_path: Path) -> None:
    """Ten vignettes share a sentence and end in the same question; an eleventh that does so too is new."""
    draw = random.Random(1)
    vowels, others = "aeiou", "bdfgklmnprst"

    def vignette() -> str:
        nonsense = ["".join(draw.choice(others) + draw.choice(vowels) for _ in range(3)) for _ in range(25)]
        vitals = (
            f"His temperature is {draw.randrange(35, 41)} C, pulse is {draw.randrange(50, 140)}/min, respirations "
            f"are {draw.randrange(10, 30)}/min and blood pressure is 120/80 mm Hg."
        )
        asked = "Which of the following is the most appropriate next step in management?"
        return f"{' '.join(nonsense)}. {vitals} {asked}"

    vignettes = [vignette() for _ in range(10)]
    exam = Benchmarks([write(tmp_path / "exam.jsonl", [{"question": text} for text in vignettes])])
    assert all(exam.check_task(text) is not None for text in vignettes)
    assert all(exam.check_answer(f"{BETWEEN} {text[:150]}") is not None for text in vignettes)
    assert [exam.check_task(vignette()) for _ in range(20)] == [None] * 20
    # Where an exam has nothing but its own language, all of it counts.
    single = Benchmarks([write(tmp_path / "single.jsonl", [{"question": vignettes[0]}])])
    assert single.check_answer(vignettes[0][-110:]) is not None


def test_an_item_in_many_files_is_still_found(tmp_path: Path) -> None:
    files = [write(tmp_path / f"exam{n}.jsonl", [{"question": HEEL}]) for n in range(6)]
    leak = Benchmarks(files).check_answer(f"{BETWEEN} {HEEL}")
    assert leak is not None
    assert leak.file == "exam0.jsonl"


def test_the_length_of_the_ngrams_is_the_user_s(tmp_path: Path) -> None:
    path = write(tmp_path / "exam.jsonl", [{"question": HEEL}])
    part = "three weeks of burning pain in his left heel"
    assert Benchmarks([path], ngram=9).check_answer(part) is not None
    assert Benchmarks([path], ngram=10).check_answer(part) is None
    with pytest.raises(ConfigError, match="too small"):
        Benchmarks([path], ngram=4)
    with pytest.raises(ConfigError, match="threshold"):
        Benchmarks([path], rouge_l=2)


def test_files_are_described_and_nothing_is_compared_without_files(exam: Benchmarks) -> None:
    described = exam.described()
    assert [(each["file"], each["items"]) for each in described] == [("exam.jsonl", 5), ("sorting.jsonl", 1)]
    assert described[0]["fields"] == ["question", "options", "contexts"]
    assert Benchmarks([]).check_task(HEEL) is None


def test_a_question_asked_of_many_texts_is_no_leak_without_its_text(tmp_path: Path) -> None:
    doctor = "If you were the doctor of this person, please answer the question below from what the letter tells you."
    letters = ["My knee clicks since I fell off a ladder; should I worry?", "Is it safe to fly with a cold?"]
    asked = [{"instruction": doctor, "input": letter} for letter in letters]
    asked += [
        {"question": "What is true?", "options": [a, b]} for a, b in (("Lead", "Tin"), ("Zinc", "Iron"))
    ]
    asked += [{"question": "What is the diagnosis?", "context": text} for text in (ABSTRACT, BETWEEN)]
    exam = Benchmarks([write(tmp_path / "exam.jsonl", asked)])
    others = (
        (doctor, "My ears ring at night, what could that be?"),
        ("What is true?", "A. Gold B. Silver"),
        ("What is the diagnosis?", "A child has spots on its tongue and a fever."),
        ("Answer.", letters[0]),
    )
    assert [exam.check_task(*task) for task in others] == [None] * len(others)
    leaks = (
        (doctor, letters[0]),
        (doctor.upper(), f"Dear doctor, {letters[1]}"),
        ("What is true?", "A. Tin B. Lead"),
        ("What is the diagnosis?", ABSTRACT),
        ("Comment on this.", ABSTRACT),
    )
    assert all(exam.check_task(*task) is not None for task in leaks)


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = []
    for folder, question in (("dev", HEEL), ("test", NAIL)):
        (tmp_path / folder).mkdir()
        files.append(write(tmp_path / folder / "exam.jsonl", [{"question": question}]))
    exam = Benchmarks(files)
    leak = exam.check_task(NAIL)
    assert leak is not None
    assert leak.file == "test/exam.jsonl"
    assert [each["file"] for each in exam.described()] == ["dev/exam.jsonl", "test/exam.jsonl"]


def test_a_file_that_nothing_could_overlap_with_is_refused(tmp_path: Path) -> None:
    rows = [{"question": text} for text in ("→ ≥ ∑", "😀🤒?", "What is gout?")]
    with pytest.raises(DataError, match="no words to compare") as caught:
        Benchmarks([write(tmp_path / "exam.jsonl", rows)])
    assert "2 of 3" in str(caught.value)


@given(st.text(), st.text())
def test_any_text_can_be_compared(instruction: str, given: str) -> None:
    exam = _exam_of_text()
    exam.check_task(instruction, given)
    assert exam.check_answer(f"{instruction} {HEEL} {given}") is not None


@cache
def _exam_of_text() -> Benchmarks:
    with tempfile.TemporaryDirectory() as folder:
        return Benchmarks([write(Path(folder) / "exam.jsonl", [{"question": HEEL}])])


def lightly_changed(text: str, draw: random.Random) -> str:
    """Change every eighth word: replace it, leave it out, or put another beside it."""
    words: list[str] = []
    for place, word in enumerate(text.split()):
        if place % 8 < 7:
            words.append(word)
        else:
            words += draw.choice([["certain"], [], [word, "also"]])
    return " ".join(words)


@pytest.mark.slow
def test_real_items_are_caught_and_real_questions_pass(real_data: Path) -> None:
    names = {"medinstruct_test.jsonl": "instruction", "medqa_usmle_4opt_test.jsonl": "question"}
    exam = Benchmarks([real_data / name for name in names])

    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (real_data / name).read_text("utf-8").splitlines()]

    draw = random.Random(0)
    for name, field in names.items():
        items = draw.sample(rows(name), 150)
        caught = Counter[str]()
        for row in items:
            text = row[field]
            choices = draw.sample(list(row.get("options", {}).values()), len(row.get("options", {})))
            plants = {
                "alone": exam.check_task(text),
                "reordered": exam.check_task("Answer.", "\n".join([text, *choices])),
                "embedded": exam.check_task("Summarise.", f"{BETWEEN} {text} {BETWEEN}"),
                "answer": exam.check_answer(f"{BETWEEN} {text} {BETWEEN}"),
                "changed": exam.check_task(lightly_changed(text, draw)),
                "changed answer": exam.check_answer(f"{BETWEEN} {lightly_changed(text, draw)} {BETWEEN}"),
            }
            caught.update(way for way, leak in plants.items() if leak is not None)
        assert all(caught[way] == 150 for way in ("alone", "reordered", "embedded", "answer")), caught
        assert min(caught["changed"], caught["changed answer"]) >= 135, caught
    new = rows("medquad_train.jsonl")[:3000]
    alarms = [
        row["id"]
        for row in new
        if exam.check_task(row["instruction"], row["input"]) or exam.check_answer(row["output"])
    ]
    assert alarms == []


CHINESE = [
    "患者，男，58岁，反复左足第一跖趾关节红肿热痛三年，饮酒后加重。T 36.5℃，P 80次/分，R 18次/分，BP 120/80mmHg。"
    "血尿酸 560μmol/L。该患者最可能的诊断是",
    "女，24岁，发热伴右下腹转移性疼痛一天。T 38.2℃，P 98次/分，R 20次/分，BP 110/70mmHg。麦氏点压痛明显。"
    "下列哪项检查最有帮助",
    "男婴，8个月，因反复抽搐两周就诊。T 36.8℃，P 120次/分，R 30次/分，BP 90/60mmHg。"
    "前囟平坦，枕秃明显。该患者最可能的诊断是",
    "孕妇，31岁，停经36周，头痛眼花三天。"
    "T 36.6℃，P 88次/分，R 20次/分，BP 165/110mmHg。尿蛋白阳性。下列哪项处理最为恰当",
]
UNRELATED = [
    "男，67岁，进行性吞咽困难半年，体重下降十公斤。T 36.7℃，P 76次/分，R 18次/分，BP 130/80mmHg。该患者最可能的诊断是",
    "女，45岁，心悸多汗消瘦两个月，双眼突出。T 37.2℃，P 110次/分，R 20次/分，BP 140/70mmHg。下列哪项检查最有帮助",
    "请列出2型糖尿病患者应当注意的3个饮食问题",
    "下列说法正确的是",
    "写一段100字的文字，向患者说明为什么每天要测2次血压，并说明120/80mmHg的含义。",
]


@pytest.fixture(scope="module")
def other_scripts(tmp_path_factory: pytest.TempPathFactory) -> Benchmarks:
    rows = [{"id": f"zh{n}", "question": text, "options": ["甲", "乙"]} for n, text in enumerate(CHINESE)]
    rows += [
        {"id": "short", "question": "痛风急性发作时首选的药物", "options": ["秋水仙碱", "别嘌醇"]},
        {"id": "general", "question": "下列说法正确的是", "options": ["肝脏产生胆汁", "胰腺产生尿酸"]},
        {
            "id": "ja",
            "question": "62歳の男性。昨夜から右足の親指の付け根が腫れて歩けない。ビールを毎日飲む。"
            "最も考えられるのはどれか。",
        },
        {"id": "th", "question": "ชายอายุ 58 ปี ปวดบวมแดงที่ข้อนิ้วหัวแม่เท้าข้างซ้ายหลังดื่มเบียร์ ควรตรวจอะไรก่อนเป็นอันดับแรก"},
        {
            "id": "ru",
            "question": "Мужчина 58 лет жалуется на сильную боль в первом пальце левой стопы, которая началась ночью "
            "после праздничного ужина с пивом. Какое исследование следует провести в первую очередь?",
        },
        {"id": "hi", "question": "गाउट के तीव्र दौरे में सबसे पहले कौन सी दवा दी जाती है?"},
        {"id": "number", "question": "Какие 2 препарата снижают мочевую кислоту?"},
    ]
    return Benchmarks([write(tmp_path_factory.mktemp("scripts") / "exam.jsonl", rows)])


@pytest.mark.parametrize(
    ("text", "item"),
    [
        (CHINESE[0], "zh0"),
        (CHINESE[1].replace("，", " , ").replace("38.2", "３８.２"), "zh1"),
        (f"请分析以下病例。{CHINESE[2][:40]}", "zh2"),
        (CHINESE[3].replace("三天", "四天").replace("孕妇", "某孕妇").replace("最为恰当", "最恰当"), "zh3"),
        ("昨夜から右足の親指の付け根が腫れて歩けない。ビールを毎日飲む。", "ja"),
        ("ปวดบวมแดงที่ข้อนิ้วหัวแม่เท้าข้างซ้ายหลังดื่มเบียร์ ควรตรวจ", "th"),
        (
            "МУЖЧИНА 58 ЛЕТ ЖАЛУЕТСЯ НА СИЛЬНУЮ БОЛЬ В ПЕРВОМ ПАЛЬЦЕ ЛЕВОЙ СТОПЫ, КОТОРАЯ НАЧАЛАСЬ ночью.",
            "ru",
        ),
        ("Врач! " + "गाउट के तीव्र दौरे में सबसे पहले कौन सी दवा दी जाती है?", "hi"),
        ("Какие ２ препарата снижают мочевую кислоту", "number"),
    ],
)
def test_leaks_are_found_in_every_script(other_scripts: Benchmarks, text: str, item: str) -> None:
    for leak in (other_scripts.check_task(text), other_scripts.check_task("Answer.", text)):
        assert leak is not None
        assert leak.item == item


def test_short_questions_in_another_script(other_scripts: Benchmarks) -> None:
    leak = other_scripts.check_task("痛风急性发作时首选的药物?")
    assert leak is not None
    assert (leak.item, leak.kind) == ("short", "whole-text")
    leak = other_scripts.check_task("下列说法正确的是", "A. 肝脏产生胆汁 B. 胰腺产生尿酸")
    assert leak is not None
    assert leak.item == "general"
    assert other_scripts.check_task("下列说法正确的是", "A. 肾脏排出尿酸 B. 心脏产生胆汁") is None


@pytest.mark.parametrize(
    "text", [*UNRELATED, "Какие 2 симптома астмы вы знаете?", "2", "T 36.5, P 80, R 18", "ข้อ 58 ปี"]
)
def test_unrelated_texts_in_other_scripts_pass(other_scripts: Benchmarks, text: str) -> None:
    assert other_scripts.check_task(text) is None
    assert other_scripts.check_task("请回答。", text) is None
    assert other_scripts.check_answer(text) is None
