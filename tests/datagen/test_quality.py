"""The plain checks: each reason with texts that deserve it and texts that only look like it."""

from collections import Counter
from pathlib import Path

import pytest

from datagen.errors import ConfigError
from datagen.language import is_other_language
from datagen.quality import check_answer, check_task, repeats_itself
from datagen.records import SeedTask, read_objects
from datagen.seeds import load_seeds
from datagen.settings import read_settings

CHOICES = "Which is live?\nA. Polio, inactivated\nB. Measles\nC. Tetanus\nD. Hepatitis B"


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (SeedTask("?!"), "empty-instruction"),
        (SeedTask("Gout?"), "instruction-too-short"),
        (SeedTask("word " * 151), "instruction-too-long"),
        (SeedTask("Sum up the note.", "word " * 601), "input-too-long"),
        (SeedTask("I'm sorry, but I cannot write this task."), "refusal"),
        (SeedTask("Answer the patient.", "As an AI, I cannot give medical advice."), "refusal"),
        (SeedTask("Describe what the attached image shows."), "asks-for-media"),
        (SeedTask("Interpret the X-ray below."), "asks-for-media"),
        (SeedTask("Draw a diagram of the heart."), "asks-for-media"),
        (SeedTask("Use the attached file to plan the diet.", "She is 70."), "asks-for-media"),
        (SeedTask("Upload the scan and describe it."), "asks-for-media"),
        (SeedTask("Name the rash.", "The rash on his arm is shown in the image."), "asks-for-media"),
        (SeedTask("Name the rhythm.", "His ECG is obtained (see figure)."), "asks-for-media"),
        (SeedTask("Name the lesion.", "Refer to the photograph of the scalp."), "asks-for-media"),
        (SeedTask("Explain the difference between gout and"), "unfinished"),
        (SeedTask("List the causes of fever,"), "unfinished"),
        (SeedTask("Shorten the note.", "The patient was seen because of"), "unfinished"),
        (SeedTask("Shorten this note:"), "input-missing"),
        (SeedTask("¿Cuáles son los síntomas de la gota y cómo se trata?"), "wrong-language"),
        (SeedTask("Quelles sont les causes de la fièvre chez les enfants ?"), "wrong-language"),
        (SeedTask("Welche Ursachen hat der Husten bei einem Kind und was ist zu tun?"), "wrong-language"),
        (SeedTask("痛风的症状是什么？如何治疗？"), "wrong-language"),
        (SeedTask("Каковы симптомы подагры?"), "wrong-language"),
        (SeedTask("Summarize the following note."), "input-missing"),
        (SeedTask("Classify the provided symptoms.", "<noinput>"), "input-missing"),
        (
            SeedTask("Summarize the note.", "Please provide the note that you want me to sum up."),
            "input-is-placeholder",
        ),
        (SeedTask("Summarize the note.", "[insert the note here]"), "input-is-placeholder"),
        (SeedTask("What are the signs of gout?", "What are the signs of gout?"), "input-echoes-instruction"),
        (SeedTask("Choose the right answer.", "Which is live?", "Multiple-choice Q&A"), "no-choices"),
        (SeedTask("Choose the right answer.", "Which of these is live?", "USMLE style Q&A"), "no-choices"),
    ],
)
def test_tasks_that_should_not_be_answered(task: SeedTask, reason: str) -> None:
    assert check_task(task, "en") == reason


@pytest.mark.parametrize(
    "task",
    [
        SeedTask("What is gout?"),
        SeedTask("Explain how an image of the heart is made by ultrasound."),
        SeedTask("Which tests are done before a chest X-ray in pregnancy?"),
        SeedTask("Draw up a plan of care for a person with a stoma."),
        SeedTask("Classify the following symptom: pain in the chest on climbing stairs."),
        SeedTask('Rewrite the following sentence: "You have a benign nevus."'),
        SeedTask("Choose the right answer.", CHOICES, "Multiple-choice Q&A"),
        SeedTask("Choose the right answer.", "Which? a) pain b) fever c) cough", "Multiple Choice Q&A"),
        SeedTask("Choose the right answer.", "Which? 1. pain 2. fever 3. cough", "MCQ"),
        SeedTask("Choose one.", "Symptom: thirst. Options: diabetes, gout, asthma", "Multiple-choice Q&A"),
        SeedTask(
            "Solve the case.", "A man of 40 faints. What is the most likely diagnosis?", "USMLE-style Q&A"
        ),
        SeedTask("Reply to the patient.", "I'm sorry to bother you, but my knee still hurts."),
        SeedTask("Reply to the patient.", "Unfortunately, my insurance does not pay for it."),
        SeedTask("Sort the viruses by genome.", "NAFLD, DNA, RNA"),
        SeedTask("Which muscles are attached to the femur?"),
        SeedTask("Explain attachment theory to a new father."),
        SeedTask("Interpret the provided X-ray.", "“Widespread markings in the lower zones.”"),
        SeedTask("Where is the plaque?", "A mass is attached to the atrial septum."),
        SeedTask("Describe the picture of depression in old age."),
        SeedTask("Name a source of vitamin A"),
        SeedTask("Which arm should the IV go in"),
        SeedTask("Compare hepatitis A with hepatitis B"),
        SeedTask(
            "Choose one.", "Which AHI fits?\nA. More than 5.\nB. Less than 5.\nC. None", "USMLE-style Q&A"
        ),
        SeedTask("Translate the complaint into English.", "Me duele la cabeza desde ayer y tengo fiebre."),
        SeedTask("Explain 'status epilepticus', 'in vitro' and 'per os'."),
        SeedTask("Amoxicillin, clavulanate, ceftriaxone: sort by route."),
        SeedTask("Define Guillain-Barré, Ménière and Sjögren."),
    ],
)
def test_tasks_that_only_look_wrong(task: SeedTask) -> None:
    assert check_task(task, "en") is None


def test_language_is_not_judged_unasked() -> None:
    assert check_task(SeedTask("Каковы симптомы подагры?")) is None
    assert check_answer("Подагра вызвана кристаллами.", "stop") is None


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        ("", "stop", "empty"),
        (" \n--", "stop", "empty"),
        ("Gout is caused by uric acid.", "length", "unfinished"),
        ("Gout is caused by uric acid.", "content_filter", "unfinished"),
        ("Gout is a disease that is caused by", "stop", "unfinished"),
        ("I'm sorry, but I can't help with that.", "stop", "refusal"),
        ("As an AI language model, I have no body.", "stop", "refusal"),
        ("I'm really sorry that you feel this way, but I am unable to provide help.", "stop", "refusal"),
        ("I am unable to provide medical advice.", "stop", "refusal"),
        ("It has two causes: bacteria, and", "stop", "unfinished"),
        ("Gout hurts. It comes from crystals that form when the blood holds much", "stop", "unfinished"),
        ("La gota es una enfermedad que se debe a los cristales del ácido úrico.", "stop", "wrong-language"),
        ("Of course. Please upload the image of the rash.", "stop", "asks-for-media"),
        ("Please provide the text you want me to summarize.", "stop", "asks-for-media"),
        ("word " * 2000 + "end.", "stop", "answer-too-long"),
        ("Rest. " + "Drink water. " * 9, "stop", "repeats-itself"),
    ],
)
def test_answers_that_should_not_be_published(text: str, finish_reason: str, reason: str) -> None:
    assert check_answer(text, finish_reason, None, "en") == reason


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "Gout",
        "The answer is (B).",
        "Uric acid forms crystals in the joint; these hurt.",
        "1. Rest\n2. Drink\n3. Call if it gets worse",
        "The score is 5",
        "**Serious**: warfarin with fluconazole (CYP2C9)",
        "I am sorry to hear that. Please call your maternity unit now.",
        "I'm sorry you have been waiting so long! Your result is normal.",
        "Please provide oxygen and call for help.",
        "You can send the sample to the laboratory tomorrow.",
        "I cannot give you a diagnosis, but I can explain. "
        + "Pain in the chest has many causes. " * 2
        + "It may "
        "come from the heart, the lungs, the gullet, the muscles or the ribs. Call for help at once if it is strong, "
        "if it lasts more than ten minutes, if you sweat or feel sick, or if it goes to the arm or jaw. If it comes "
        "only when you press on the ribs or move, it is more likely a strained muscle, which rest and warmth help. "
        "Tell your doctor within a week in any case.",
        "It has two stages:\n- acute\n- chronic",
        "Wash your hands. Centers for Disease Control and Prevention",
        "Read more. https://medlineplus.gov/gout.html",
        "| drug | dose |\n|---|---|\n| aspirin | 100 mg |",
    ],
)
def test_answers_that_are_fine(text: str) -> None:
    assert check_answer(text, "stop", None, "en") is None


def test_tasks_about_languages_may_be_answered_in_any() -> None:
    text = "La gota es una enfermedad que se debe a los cristales del ácido úrico."
    task = SeedTask(
        "Translate the sentence into Spanish.", "Gout is a disease caused by crystals of uric acid."
    )
    assert check_answer(text, "stop", task, "en") is None
    assert check_answer(text, "stop", SeedTask("What is gout?"), "en") == "wrong-language"


ENGLISH = (
    "The gout is a disease of the joints and it is caused by crystals that form when there is too much acid."
)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", ENGLISH),
        (
            "es",
            "La gota es una enfermedad de las articulaciones que se debe a los cristales del ácido úrico.",
        ),
        ("fr", "La goutte est une maladie des articulations qui est due aux cristaux dans les tissus."),
        ("de", "Die Gicht ist eine Krankheit der Gelenke und wird von Kristallen im Gewebe ausgelöst."),
        ("it", "La gotta è una malattia delle articolazioni che è causata dai cristalli di acido urico."),
        ("pt", "A gota é uma doença das articulações que é causada por cristais e não por uma infecção."),
        (
            "nl",
            "Jicht is een ziekte van de gewrichten en het wordt veroorzaakt door kristallen van urinezuur.",
        ),
        ("zh", "痛风是由尿酸结晶引起的关节疾病。"),
        ("ru", "Подагра — болезнь суставов, вызванная кристаллами мочевой кислоты."),
        ("ar", "النقرس مرض يصيب المفاصل بسبب بلورات حمض البول."),
        ("hi", "गठिया जोड़ों की बीमारी है जो यूरिक एसिड से होती है।"),
    ],
)
def test_each_language_is_told_from_all_others(language: str, text: str) -> None:
    assert not is_other_language(text, language)
    others = ["en", "es", "fr", "de", "it", "nl", "zh", "ru", "ar", "hi"]
    assert all(
        is_other_language(text, other)
        for other in others
        if {language, other} != {"es", "pt"} and other != language
    )


def test_unknown_languages_are_refused() -> None:
    service = {"base_url": "http://localhost/v1", "model": "m"}
    with pytest.raises(ConfigError, match="language: 'klingon' is not one of"):
        read_settings([("file", {"teacher": service, "language": "klingon"})])
    for language in ("any", "en"):
        read_settings([("file", {"teacher": service, "language": language})])


def test_real_tasks_and_answers_raise_few_alarms(real_data: Path) -> None:
    """Written by clinicians or taken from NIH pages and exams: what is objected to must deserve it."""
    seeds = load_seeds(real_data / "med_seed.json")
    assert [task.instruction for task in seeds if check_task(task, "en")] == []
    test = [row for _, row in read_objects(real_data / "medinstruct_test.jsonl")]
    assert [row["id"] for row in test if check_task(SeedTask(row["instruction"]), "en")] == []
    rows = [row for _, row in read_objects(real_data / "medquad_valid.jsonl")]
    assert [row["instruction"] for row in rows if check_task(SeedTask(row["instruction"]), "en")] == []
    alarms = Counter(check_answer(row["output"], "stop", None, "en") for row in rows)
    assert set(alarms) <= {None, "unfinished", "answer-too-long", "repeats-itself"}
    assert alarms[None] >= 0.98 * len(rows)
    exam = [row for _, row in read_objects(real_data / "medqa_usmle_4opt_test.jsonl")]
    tasks = [
        SeedTask(
            "Answer the question.",
            "\n".join([row["question"], *(f"{k}. {v}" for k, v in row["options"].items())]),
            "USMLE-style Q&A",
        )
        for row in exam
    ]
    objected = Counter(check_task(task, "en") for task in tasks)
    # These 42 speak of a picture that is not there; all of them were read.
    assert objected == {None: len(tasks) - 42, "asks-for-media": 42}


def test_repeats_are_told_from_lists() -> None:
    assert repeats_itself("Take it. Take it. Take it. Take it.")
    assert not repeats_itself("Yes. Yes. Yes.")
    assert not repeats_itself("\n".join(f"{n}. Step {n}" for n in range(20)))


GREEK, HINDI, THAI = "Τι είναι η ουρική αρθρίτιδα;", "गाउट का इलाज क्या है?", "โรคเกาต์คืออะไร"


@pytest.mark.parametrize(
    ("instruction", "given", "reason"),
    [
        ("请解释痛风", "", None),
        ("痛风", "", "instruction-too-short"),
        ("통풍", "", "instruction-too-short"),
        ("ﾂｳﾌｳとは", "", None),
        (THAI, "", None),
        (GREEK, "", None),
        (HINDI, "", None),
        ("请" * 310, "", "instruction-too-long"),
        ("请总结病历", "".join(map(chr, range(0x4E00, 0x4E00 + 1100))), None),
        ("请总结病历", "病" * 1300, "input-too-long"),
        ("请解释痛风和高血压，", "", "unfinished"),
        ("请总结以下病历：", "", "input-missing"),
        ("请解释痛风的治疗方法", "请解释痛风的治疗方法。", "input-echoes-instruction"),
        ("Объясните лечение подагры", "объясните лечение подагры!", "input-echoes-instruction"),
    ],
)
def test_tasks_in_other_scripts(instruction: str, given: str, reason: str | None) -> None:
    assert check_task(SeedTask(instruction, given)) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("痛风由尿酸引起。它会导致关节疼痛。", None),
        ("痛风由尿酸引起。它会导致关节疼痛和肿胀并且需要长期", "unfinished"),
        ("治疗：\n1、休息\n2、多喝水，避免饮酒并且按时服用医生开的药物直到症状完全消失为止", None),
        ("यह रोग यूरिक अम्ल के कारण होता है। इसमें रात में जोड़ों में बहुत तेज़ दर्द होता है जो कई दिन रहता है।", None),
        ("โรคเกาต์เกิดจากกรดยูริกในเลือดสูง ทำให้ปวดข้อ และควรดื่มน้ำมาก ๆ " * 2, None),
        ("休息。喝水。休息。休息。休息。", "repeats-itself"),
        ("दवा लें। पानी पिएँ। दवा लें। दवा लें। दवा लें।", "repeats-itself"),
        ("".join(map(chr, range(0x4E00, 0x4E00 + 3900))) + "。", None),
        ("字" * 4100 + "。", "answer-too-long"),
        ("是", None),
    ],
)
def test_answers_in_other_scripts(text: str, reason: str | None) -> None:
    assert check_answer(text, "stop") == reason


def test_scripts_are_told_in_any_form() -> None:
    assert not is_other_language("ﾂｳﾌｳﾉﾁﾘｮｳﾎｳﾎｳ", "ja")
    assert is_other_language("Explain the treatment of gout", "ja")
