"""Judge two models: both answer the same prompts, a judge compares every pair of answers in both orders.

python examples/judge_two_models.py MODEL REFERENCE_MODEL PROMPTS.jsonl OUT --judge-url URL --judge-model NAME

The judge is any OpenAI-compatible server; its key is read from the environment variable OPENAI_API_KEY. Every reply is
kept in OUT/judging, so a second start asks nothing twice.
"""

import argparse
from pathlib import Path

import alpacare_jax as alpacare
from alpacare_jax.evaluate.tables import format_table
from datagen.client import Service

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument(
    "models", nargs=2, metavar="MODEL", help="the model, and the model that it is compared with"
)
parser.add_argument("prompts", type=Path, help="records with `instruction` and `input`")
parser.add_argument("out", type=Path)
parser.add_argument("--judge-url", required=True, help="such as https://api.openai.com/v1")
parser.add_argument("--judge-model", required=True)
parser.add_argument("--max-tokens", type=int, default=256, help="longest answer")
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)

files = [arguments.out / "model.jsonl", arguments.out / "reference.jsonl"]
for name, file in zip(arguments.models, files, strict=True):
    if not file.exists():
        alpacare.generate(name, arguments.prompts, file, template="chat", max_tokens=arguments.max_tokens)

settings = alpacare.JudgeSettings(Service(arguments.judge_url, arguments.judge_model))
work = arguments.out / "judging"
verdicts = alpacare.judge(files[0], files[1], settings, work=work, name="model", say=print)
print(format_table(alpacare.score(verdicts)))
