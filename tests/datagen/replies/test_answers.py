"""The answer alone: thoughts, control tokens, wrappers and role names of every family are taken off or told of."""

import time

import pytest

from datagen.client import Reply
from datagen.records import SeedTask
from datagen.replies.answers import bare_answer, leftover
from datagen.replies.thinking import without_thoughts
from datagen.safety import Objection, SafetyCheck
from datagen.task_filter import check_answer, show_task

THOUGHT = "The user asks about rest. I should mention water."
ANSWER = "Rest and drink enough water."
ASKED = "What helps against a cold?"

WHOLE = """\
<think>\\n{t}\\n</think>\\n\\n{a}
<think></think>\\n\\n{a}
{t}</think>{a}
<THINK>{t}</THINK>{a}
{a}[UNUSED_TOKEN_145]
{a} [end of text]
<thought>{t}</thought>{a}
<reasoning>{t}</reasoning>\\n{a}
<reflection>{t}</reflection>{a}
<scratchpad>{t}</scratchpad>{a}
<inner_monologue>{t}</inner_monologue>{a}
<chain_of_thought>{t}</chain_of_thought>{a}
<antThinking>{t}</antThinking>{a}
<think type="deep" budget=3>{t}</think>{a}
<thinking>{t}</think>{a}
<thinking>{t}<reflection>{t}</reflection></thinking>{a}
<think>{t} <think> tags {t}</think>{a}
<think>a<think>b</think>c</think>{a}
<think>{t}</think>\\n{a}\\n<think>{t}
<seed:think>{t}</seed:think>{a}
[THINK]{t}[/THINK]{a}
[Reasoning]{t}[/Reasoning]{a}
[BEGIN THINKING]{t}[END THINKING]{a}
<Thinking Process>{t}</Thinking Process>{a}
{thinking}{t}{/thinking}{a}
**<think>**{t}**</think>**\\n{a}
> <think>\\n> {t}\\n> </think>\\n\\n{a}
{t}</think>{a}</think>
/no_think {a}
{a}\\n[End of answer]
<seed:bos>assistant\\n{a}<seed:eos>
{"thoughts": "{t}", "final_answer": "{a}"}
AI Doctor: {a}
**Answer**\\n\\n{a}
◁think▷{t}◁/think▷{a}
【思考】{t}【/思考】{a}
«think»{t}«/think»{a}
&lt;think&gt;{t}&lt;/think&gt;{a}
<|think|>{t}<|/think|>{a}
<|think|>{t}<|end|><|begin|>assistant<|content|>{a}<|end|>
<|inner_prefix|>{t}<|inner_suffix|>{a}
<|START_THINKING|>{t}<|END_THINKING|><|START_RESPONSE|>{a}<|END_RESPONSE|>
<|begin_of_thought|>{t}<|end_of_thought|><|begin_of_solution|>{a}<|end_of_solution|>
<|channel|>analysis<|message|>{t}<|end|><|start|>assistant<|channel|>final<|message|>{a}<|return|>
{t}<|end|><|start|>assistant<|channel|>final<|message|>{a}
<|channel>thought\\n{t}<channel|>{a}
<|im_start|>think\\n{t}<|im_start|>answer\\n{a}
analysis{t}assistantfinal{a}
Here is my thought process: {t}\\n\\nHere is my response: {a}
Thinking...\\n{t}\\n...done thinking.\\n\\n{a}
## Thinking\\n\\n{t}\\n\\n## Final Response\\n\\n{a}
Thought: {t}\\nFinal Answer: {a}
<details type="reasoning" done="true">\\n<summary>Thought for 3 s</summary>\\n> {t}\\n</details>\\n{a}
```thinking\\n{t}\\n```\\n{a}
{a}<|eot_id|>
{a}<｜end▁of▁sentence｜>
<s> {a}</s>
<bos>{a}<eos>
{a}<pad><pad>
{a} [EOS]
{a}<0x0A>
{a}<extra_id_0>
<|begin_of_box|>{a}<|end_of_box|>
[/INST] {a}</s>
[INST] What? [/INST] {a}</s>
<start_of_turn>model\\n{a}<end_of_turn>
<|start_header_id|>assistant<|end_header_id|>\\n\\n{a}<|eot_id|>
<|start_of_role|>assistant<|end_of_role|>{a}<|end_of_text|>
[|assistant|]{a}[|endofturn|]
<｜Assistant｜>{a}
{a}<|eot_id|><|start_header_id|>user<|end_header_id|>\\n\\nWhat?
{a}<|im_end|>\\n<|im_start|>user\\nMore?<|im_end|>\\n<|im_start|>assistant\\nNo.
{a}</s><s>[INST] More? [/INST] No.
{a}<|endoftext|>Human: More?
<think>{t}</think>\\n<answer>\\n{a}\\n</answer>
<answer>{a}
{a}</answer>
<answer>\\n<response>{a}</response></answer>
<finalAnswer>{a}</finalAnswer>
[ANSWER]{a}[/ANSWER]
$\\\\boxed{\\\\text{{a}}}$
```\\n{a}\\n```
```markdown\\n{a}\\n```
{"answer": "{a}"}
Assistant: {a}
<|assistant|>ASSISTANT: {a}
AI: {a}
assistant\\n\\n{a}
**Answer:** {a}
### Response:\\n{a}
Doctor: {a}
答：{a}
**Dr. Maria Lopez:** {a}
Nurse Kelly's answer: {a}
Médecin : {a}
{a}<br/>\\n<br>
&nbsp;<br>{a}
""".splitlines()

DOUBTFUL = """\
{a} <think>{t}
{a}</s> {a}
{a}<|im_end|>\\n<|im_start|>assistant\\n{a}
[INST] What? {a}
{a}\\n\\nUser: And what else?
User: What?\\nAssistant: {a}
{a}\\n### Instruction:\\nWrite a letter.
{a}\\n\\nInstruction: Explain gout.\\nResponse: {a}
{a}assistant\\n\\nYou are welcome.
Okay, so the user is asking about colds. {a}
We need to answer: rest. {a}
I must answer the user's question. {a}
{a}\\n\\nQ: Why?\\nA: Water helps.
{a}\\n<human>: Why?
<!-- {t} -->{a}
{t}<answer>{a}</answer>
<answer>{a}</answer><answer>{a}</answer>
<workings>{t}</workings>{a}
<tool_call>{"name": "search"}</tool_call>
Okay, let me think. The question asks what helps, so I should mention rest. {a}
Alright, so I need to figure out what helps. {a}
The task is to give advice. I'll keep it short. {a}
I'm being asked about colds. Let me give advice. {a}
Let's see, the patient has a cold. {a}
好的，让我想想。题目问的是感冒。{a}
Je dois répondre à la question. {a}
{a} Wait, that is not complete.
{a}\\n\\nPatient: Thanks, doctor!
{a}\\n\\nDr. Smith: You're welcome!
Doctor: {a}\\n\\nPatient: Thank you!
{a}\\n\\nFollow-up question: Why?\\nAnswer: Because.
System: You are a helpful assistant. {a}
<SYSTEM>{a}
<USER PROMPT>{a}
{a}\\n[USER]
Take <unk> daily. {a}
Take 5<0xE2><0x80> mg. {a}
▁Rest▁and▁drink▁water.
RestĠandĠdrink.
""".splitlines()

OWN = """\
BP <140/90, and <think twice> of it; HbA1c < 7%, LDL >2.
[Ca2+] is 2.4, [K+] 4; see [1].
Peripheral arterial disease [PAD]
Reasoning: the patient is old.\\n\\nThe answer is (B).
**Reasoning**\\nOld.\\n\\n**Answer**: B
[Analysis]\\nThe trial was small.
# Gout\\n\\nRest.\\n\\n## Answer\\nB
Let's think step by step. The man is old.
Thoughts: I am useless.\\nFeelings: sad
<table><tr><td><5 mg</td></tr></table>
| <5 | >10 |\\n|---|---|
H<sub>2</sub>O
Doctor: Hello.\\nPatient: Hello.
Nurse: Hello.\\nMr. Lee: Hello.\\nNurse: Sit down.
Output: 1200 mL\\nInput: 1500 mL
System: cardiovascular\\nNormal.
Instruction: take daily with food.
```python\\nx = 1\\n```
{"dose": 1, "unit": "mg"}
The answer is \\\\boxed{B}
Ġorġ lives in Malta.
Response: the tumour shrank by 30%.
Response: 40% of the patients improved.
The assistant: hold the retractor; the surgeon: cut.
Dr. Smith: an eponym of a fracture.
User: a person who uses the inhaler.
Q: Do you smoke?\\nA: No.\\nQ: Do you drink?\\nA: No.
Common questions:\\n\\nQ: Is it viral?\\nA: Yes.
Roles:\\n\\nDoctor: "You decide."\\nPatient: "I will."
Patient: "Is it bad?"\\nAssistant: "I will ask."\\nPatient: "Thanks."
```xml\\n<patient><think>no</think></patient>\\n```\\nis how it looks.
<ClinicalDocument><title>Note</title></ClinicalDocument> is the root of a CDA file.
Use `<section>` and `</section>` here.
Keep CRP <5 mg/dL, and glucose >70.
The question asks for the nerve. The answer is (C).
First, let's look at the sodium: it is low.
Dear doctor, I need to understand my options.
Wait, watch and call if it gets worse.
Let me explain what your results mean.
""".splitlines()


def filled(form: str) -> str:
    text = form.replace("\\n", "\n").replace("\\\\", "\\")
    return text.replace("{t}", THOUGHT).replace("{a}", ANSWER)


@pytest.mark.parametrize("form", WHOLE)
def test_the_answer_alone_is_taken(form: str) -> None:
    answer = bare_answer(filled(form), ASKED)
    assert answer == ANSWER
    assert leftover(answer, ASKED) is None


@pytest.mark.parametrize("form", DOUBTFUL)
def test_what_is_left_of_a_models_markup_is_told_of(form: str) -> None:
    assert leftover(bare_answer(filled(form), ASKED), ASKED)


@pytest.mark.parametrize("form", OWN)
def test_an_answers_own_marks_stay(form: str) -> None:
    text = filled(form)
    assert bare_answer(text, ASKED) == text
    assert leftover(text, ASKED) is None


@pytest.mark.parametrize(
    "form",
    [
        "<think>{t}",
        "analysis{t}",
        "Thinking Process:\n\n1. {t}",
        "<|channel|>analysis<|message|>{t}",
        "<think>{t}</think>",
        "[THINK]{t}",
        "<thinking>a <reflection>b</reflection> c",
    ],
)
def test_thoughts_alone_leave_nothing(form: str) -> None:
    assert without_thoughts(filled(form)) == ""


def test_a_task_may_ask_for_what_looks_like_markup() -> None:
    dialogue = "Here it is:\n\nUser: Hello.\nAssistant: Hello."
    assert bare_answer(dialogue, ASKED) == dialogue
    assert leftover(dialogue, ASKED) == "another-turn"
    assert leftover(dialogue, "Write a conversation with a chatbot.") is None
    record = "<patient><age>40</age></patient>"
    assert leftover(record, ASKED) == "control-tokens"
    assert leftover(record, "Write the record as XML.") is None


def test_tasks_are_cleaned_too() -> None:
    task = SeedTask("What is gout?<|eot_id|>", "<think>A case.</think>A man of 60.", "Chat")
    assert show_task(task) == SeedTask("What is gout?", "A man of 60.", "Chat")
    for text in ("Rest.</s> What is gout?", "Explain <thinking> gout."):
        with pytest.raises(Objection, match="control-tokens"):
            show_task(SeedTask(text))


def test_a_tokens_mention_in_the_task_is_answered() -> None:
    reply = Reply("1", "It marks the end: <|eot_id|> is a token.", "stop", "m", 1, 1)
    assert check_answer(SeedTask("What does <|eot_id|> mean?"), reply, "any", SafetyCheck()) == reply
    with pytest.raises(Objection):
        check_answer(SeedTask("What is gout?"), reply, "any", SafetyCheck())


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "[",
        "<think>",
        "<think></reasoning>",
        "<a_b_",
        '<a b="',
        "```thinking\n",
        "Thought:\n",
        "<|",
        "Instruction:\n",
        "<details><summary>Thought",
        " ",
        "\n",
        "<think ",
        "\\boxed{",
        "```xml\n<think>\n",
        "Q: a\n",
        "Patient: I\n",
        "<br>",
    ],
)
def test_hostile_replies_take_time_in_proportion(unit: str) -> None:
    text = "Rest. " + unit * (50_000 // len(unit))
    start = time.perf_counter()
    leftover(bare_answer(text, ASKED), ASKED)
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("SYSTEM: Answer briefly.\nRest and drink water.", "another-turn"),
        ("**SYSTEM:** Be concise.\n\nRest and drink water.", "another-turn"),
        ("System: respiratory\nThe lungs fill with air.", None),
        ("Review of systems.\nSYSTEM: cardiovascular, no chest pain.", None),
    ],
)
def test_an_echoed_system_prompt_is_no_answer_and_an_organ_system_is(said, kind):
    assert leftover(bare_answer(said), ASKED) == kind
