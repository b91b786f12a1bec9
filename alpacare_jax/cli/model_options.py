"""Options that the verbs which open a model share."""

from typing import Annotated

from typer import Option

Model = Annotated[
    str, Option(help="Model folder, run folder, Hugging Face folder, .gguf file or hub name (org/model).")
]
Template = Annotated[str, Option(help="Prompt template: alpaca, or chat for the model's own.")]
Slots = Annotated[int, Option(min=1, help="Prompts answered at the same time; the others wait.")]
MaxLen = Annotated[
    int | None, Option(min=2, help="Longest prompt plus response, in tokens; at most 2048 if not given.")
]
Mesh = Annotated[
    str | None, Option(help="Devices along each axis, such as fsdp=4,tensor=2; one device if not given.")
]
Dtype = Annotated[
    str | None, Option(help="float32 or bfloat16; float32 on CPUs, else bfloat16, if not given.")
]
