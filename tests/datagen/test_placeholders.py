"""Inputs that stand for a text, told from short inputs that are one."""

import json
import time
from pathlib import Path

import pytest

from datagen.placeholders import is_placeholder
from datagen.quality import check_task
from datagen.records import SeedTask


@pytest.mark.parametrize(
    "given",
    [
        "A 150-word case report describing a 45-year-old man with gout.",
        "Describe a patient with heart failure here.",
        "Sample MRI report of a patient with a disc herniation.",
        "A hypothetical patient with diabetes",
        "Patient's medical history and current medications",
        "A list of ten symptoms the patient is experiencing",
        "Details of the patient's complaint",
        "Historia clínica del paciente",
        "Dossier médical du patient",
        "Laborwerte und aktuelle Medikamente des Patienten",
        "История болезни пациента",
        "患者的病历",
        "一位患者的病史和检查结果",
        "환자의 병력",
        "The patient's visit note (approx. 120 words)",
        "A table of vital signs for a child with croup",
        "A transcript of a phone call between a midwife and a mother.",
        "[Insert patient history here]",
        "(Patient's lab results)",
        "<patient note>",
        "Case details: ...",
        "A detailed description of a 45-year-old man with chest pain would be provided",
        "Text of the article goes here",
        "Lorem ipsum dolor sit amet",
        "The text of the article goes here.",
        "A case study of a patient with COPD that describes symptoms and treatment",
        "{patient_history}",
        "{{article}}",
        "[Article text]",
        "Patient: [name]\nAge: [age]\nHistory: [history]",
        "Patient history:",
        "A short passage about hypertension",
        "A detailed clinical vignette of a 60-year-old woman with shortness of breath",
        "Your text here",
        "The patient's medical history",
        "A list of medications that includes warfarin and aspirin",
        "A paragraph explaining the causes of asthma in children.",
        "A 200-word abstract on the use of statins",
        "An abstract of 100-150 words about gout",
        "Un caso clínico de 150 palabras que describe a un paciente con gota",
        "Ein 150 Wörter langer Fallbericht über Gicht",
        "Un texte de 150 mots décrivant un patient",
        "一段150字的病例报告，描述痛风患者",
        "Inserte aquí el texto",
        "Hier den Text hier einfügen",
        "Insérez le texte ici",
        "请输入患者病史",
        "[病史]",
        "...",
        "…",
        "—",
        "A medical article discussing the benefits of exercise",
        "A patient's description of symptoms will be provided",
        "Case report to be inserted",
        "Patient information: [details]",
        "___",
        "TBD",
        "Sample text",
        "[Name], a [age]-year-old [gender], presents with [symptoms] for [duration].",
        "(insert discharge summary)",
        "A transcript of a conversation between a doctor and a patient about insulin",
        "The following is a brief summary: [summary]",
        "A research abstract describing a randomized trial of aspirin in which patients were followed up for 5 years.",
        "A clinical note detailing a patient who was admitted with sepsis",
        "Two paragraphs describing the pathophysiology of asthma",
        "A dialogue between nurse and patient about diabetes",
        "<insert case here>",
        "A full pathology report of a breast biopsy",
        "Given patient data",
        "A comprehensive patient case, including history, exam and labs",
        "150-200 words on diabetes",
        "Approximately 150 words describing a patient's history",
        "A 200 word passage on gout.",
        "A medical report of a patient with lung cancer to be summarized",
        "See the attached text",
        "%PATIENT_HISTORY%",
        "INSERT_TEXT_HERE",
        "A research paper on the effects of metformin",
        "Un paragraphe décrivant les symptômes",
        "Una descripción detallada de un paciente",
        "Ein kurzer Text über Diabetes",
        "Краткое описание пациента с диабетом",
        "一篇关于糖尿病的文章",
    ],
)
def test_placeholders_are_found(given: str) -> None:
    assert is_placeholder(given)


@pytest.mark.parametrize(
    "given",
    [
        "A 45-year-old man with chest pain.",
        "Physical therapy",
        "Typical pneumonia",
        "Signs of stroke",
        "Sample size was 200 patients in a double-blind trial",
        "Generic drugs",
        "患者发热三天",
        "El paciente tiene fiebre",
        "Der Patient hat Fieber",
        "A table of values shows a sodium of 128 mmol/L.",
        "A list of my pills: warfarin 5 mg, digoxin 125 mcg",
        "Warfarin and ibuprofen",
        "BP 150/95, HR 88",
        "Chest pain",
        "A study of 200 patients found that aspirin reduces events.",
        "History of hypertension and diabetes",
        "A long history of smoking and cough",
        "An article describing the effects of statins was published in 2010 and found 20% fewer events.",
        "Diagnosis: gout",
        "Patient: John, 45, chest pain",
        "(A) gout (B) sepsis",
        "[1] Aspirin\n[2] Heparin",
        '{"age": 40}',
        "<b>Gout</b>",
        "Case report",
        "Systematic review",
        "Lab results: Na 130, K 5.5",
        "A patient with gout asks about diet.",
        "The report was normal.",
        "Hb 9.1, WBC 12 (high)",
        "Patient note: 60 yo F with cough.",
        "Give me advice about my knee pain and how it can be treated over the next weeks, since my heart is weak",
        "I have had a cough for three days...",
        "A list of drugs: warfarin, aspirin",
        "Oxygen should be provided.",
        "The discharge summary says: take aspirin",
        "Medication list: metformin; lisinopril",
        "Hypertension, diabetes, obesity",
        "He has ___ pain",
        "My doctor's note says I have GERD, what is that?",
        "A nurse notes that the drain is full.",
        "Sentence: The patient is stable.",
        "Two cases of measles were reported.",
        "The patient's record shows atrial fibrillation.",
        "(+)-Warfarin",
        "(fever, cough, rash)",
        "Case: 30-year-old with fever",
        "Patient is stable",
        "A woman describes a rash.",
        "痛风",
        "患者，男，45岁，胸痛。",
        "Paciente de 45 años con dolor torácico.",
        "A review of systems is negative.",
        "Abstract: Background. Gout is common.",
        "Sodium 140 | K 4",
        "What is in a 500-word essay?",
        "Me duele aquí",
        "Cole is 5 years old.",
        "Paste of zinc oxide",
        "Add-on therapy with metformin",
        "A lengthy report on an outbreak in Rome.",
    ],
)
def test_short_inputs_are_none(given: str) -> None:
    assert not is_placeholder(given)


def test_tasks_with_placeholders_are_rejected() -> None:
    described = SeedTask("Sum up the case.", "A 150-word case report describing a man with gout.")
    assert check_task(described) == "input-is-placeholder"
    assert check_task(SeedTask("Summarize this article: [insert article text]")) == "input-is-placeholder"


def test_real_inputs_are_none(real_data: Path) -> None:
    inputs = [row["input"] for row in json.loads((real_data / "med_seed.json").read_text())]
    for name in ("gpt-4_medsi_output.jsonl", "gpt-4_icliniq_output_first100.jsonl"):
        inputs += [json.loads(line)["input"] for line in (real_data / name).read_text().splitlines()]
    assert [given for given in inputs if given not in ("", "<noinput>") and is_placeholder(given)] == []


@pytest.mark.parametrize(
    "unit", ["a ", "the ", "[a", "(", "<a", "{", "_", "A report ", "Case: ", "x:\n", " "]
)
def test_long_inputs_take_time_in_proportion(unit: str) -> None:
    start = time.perf_counter()
    is_placeholder("A " + unit * (100_000 // len(unit)))
    assert time.perf_counter() - start < 3
