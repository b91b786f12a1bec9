"""The plain checks: each reason with texts that deserve it and texts that only look like it."""

import doctest

import pytest

import datagen.dedup
import datagen.parse
import datagen.quality
import datagen.seeds
from datagen.quality import check_answer, check_task, repeats_itself
from datagen.records import SeedTask

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
    assert check_task(task) == reason


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
    ],
)
def test_tasks_that_only_look_wrong(task: SeedTask) -> None:
    assert check_task(task) is None


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
        ("Of course. Please upload the image of the rash.", "stop", "asks-for-media"),
        ("Please provide the text you want me to summarize.", "stop", "asks-for-media"),
        ("word " * 2000 + "end.", "stop", "answer-too-long"),
        ("Rest. " + "Drink water. " * 9, "stop", "repeats-itself"),
    ],
)
def test_answers_that_should_not_be_published(text: str, finish_reason: str, reason: str) -> None:
    assert check_answer(text, finish_reason) == reason


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
    ],
)
def test_answers_that_are_fine(text: str) -> None:
    assert check_answer(text, "stop") is None


def test_repeats_are_told_from_lists() -> None:
    assert repeats_itself("Take it. Take it. Take it. Take it.")
    assert not repeats_itself("Yes. Yes. Yes.")
    assert not repeats_itself("\n".join(f"{n}. Step {n}" for n in range(20)))


@pytest.mark.parametrize("module", [datagen.quality, datagen.dedup, datagen.parse, datagen.seeds])
def test_examples_in_the_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0
