"""Your own provider to a dataset: estimate, synthesise under a spending cap, publish with a dataset card.

python examples/own_provider.py WORK OUT --base-url URL --model NAME [--target 200] [--budget-usd 5]

Any OpenAI-compatible service will do; its key is read from the environment variable OPENAI_API_KEY. The budget needs
the model's price: if it is not in the package's list, pass --price IN OUT in US dollars per million tokens, or 0 0 for
a server of your own. Every reply is kept in WORK, so an interrupted run resumes without asking anything twice.

With a very small model, which can write only one task at a time and is slow on a CPU:

alpacare serve --model model.gguf
python examples/own_provider.py WORK OUT --base-url http://127.0.0.1:8000/v1 --model model --price 0 0 --target 10 \
    --config configs/synthesize/smollm2.yaml
"""

import argparse
from pathlib import Path

import datagen

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("work", type=Path, help="work folder: ledger and results")
parser.add_argument("out", type=Path, help="folder of the published dataset")
parser.add_argument("--base-url", required=True, help="such as https://api.openai.com/v1")
parser.add_argument("--model", required=True)
parser.add_argument("--target", type=int, default=200, help="accepted tasks")
parser.add_argument("--budget-usd", type=float, default=5.0, help="most that the work folder may ever spend")
parser.add_argument(
    "--price", type=float, nargs=2, metavar=("IN", "OUT"), help="US dollars per million tokens"
)
parser.add_argument("--config", type=Path, help="YAML file of other settings")
arguments = parser.parse_args()

settings = {
    "config": arguments.config,
    "teacher": {"base_url": arguments.base_url, "model": arguments.model},
    "target": arguments.target,
    "budget_usd": arguments.budget_usd,
}
if arguments.price:
    settings["prices"] = {arguments.model: dict(zip(("input", "output"), arguments.price, strict=True))}

plan = datagen.plan_synthesis(arguments.work, **settings)
estimate = plan.estimate
print(f"estimated requests: {estimate.tasks.requests} for tasks, {estimate.answers.requests} for answers")

funnel = datagen.synthesize(arguments.work, **settings)
print(f"{funnel.instructions} instructions of {funnel.tasks_kept} accepted tasks")

manifest = datagen.publish(
    arguments.work, arguments.out, license="CC-BY-4.0", validation_share=0.05, overwrite=True
)
print(f"published {manifest['rows']} in {arguments.out}")
