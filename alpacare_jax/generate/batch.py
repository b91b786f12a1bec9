"""Answering a file of prompts, resumably: a prompt that has a response is not answered again.

Finished responses are appended to ``OUT.part``, whose first line describes what they were made with: the weights
themselves (not only the model's name), the tokenizer, the prompts and the sampling. At the end all are written to
``OUT`` in the order of the prompts, and the part file is deleted.

Under several processes each runs the same engine over the same prompts (one program, many devices); only process 0
reads and writes the part file, and it tells the others which prompts are left.
"""

import contextlib
import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alpacare_jax.data.examples import encode_prompt
from alpacare_jax.errors import DataError, ServiceError, UserError
from alpacare_jax.generate.engine import Engine
from alpacare_jax.generate.generation import Generation
from alpacare_jax.generate.sampling import SamplingParams
from alpacare_jax.prompts import Template
from datagen.files import refuse_existing
from datagen.records import Prompt, Response, parse_line, read_objects, write_objects, write_records

Progress = Callable[[int, int, int], None]
"""Called with the responses finished, the responses in all, and the tokens drawn since the start."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What to answer, and how.

    Args:
        prompts: The prompts, with ids that differ.
        out: The response file; None writes none.
        model: The model's name, noted in every response.
        template: How a prompt is put before the model.
        sampling: How to draw. The seed of each prompt follows from its id and this seed, so that a response does
            not depend on what else the file holds.
    """

    prompts: Sequence[Prompt]
    out: Path | None
    model: str
    template: Template = "alpaca"
    sampling: SamplingParams = SamplingParams()

    @property
    def part(self) -> Path:
        """The file of finished responses, while others are unfinished."""
        assert self.out is not None
        return self.out.with_name(self.out.name + ".part")

    def settings(self) -> dict[str, Any]:
        """Return what the responses depend on, except for the model."""
        asked = json.dumps([[p.id, p.instruction, p.input] for p in self.prompts], ensure_ascii=False)
        return {
            "model": self.model,
            "template": self.template,
            "prompts": hashlib.sha256(asked.encode()).hexdigest(),
            **dataclasses.asdict(self.sampling),
            "stop": list(self.sampling.stop),
        }


def read_prompts(source: str | Path | Iterable[str | Mapping[str, Any]]) -> list[Prompt]:
    """Read prompts, or the tasks of an instruction file; a row without an id gets the number of its line.

    A list holds such rows, or texts.

    An answer that the rows hold already is kept in the responses as ``output``.

    Raises:
        DataError: A row is broken or empty, or two have the same id.
    """
    prompts: list[Prompt] = []
    places: dict[str, str] = {}
    for where, row in read_objects(source, text="instruction"):
        line = where.rpartition(":")[2]
        row = row if row.get("id") not in (None, "") else {**row, "id": line}
        prompt = Prompt.from_dict(row, where=where)
        if not prompt.instruction.strip():
            raise DataError("the instruction is empty", where=where, remedy="fill it in or delete the row")
        if prompt.id in places:
            raise DataError(
                "two prompts have the same id",
                where=where,
                found=f"{prompt.id}, also at {places[prompt.id]}",
                remedy="give every prompt an id of its own",
            )
        places[prompt.id] = where
        prompts.append(prompt)
    return prompts


def answer(
    engine: Engine, job: Job, *, overwrite: bool = False, progress: Progress | None = None
) -> list[Response]:
    """Answer every prompt and write the response file.

    Args:
        engine: The generator.
        job: What to answer.
        overwrite: Replace an existing response file, and drop the part file of another configuration.
        progress: Told how far it is.

    Returns:
        All responses, in the order of the prompts.

    Raises:
        DataError: The output exists, a prompt is too long, or the part file was made with other settings or by
            another model.
    """
    generations = [_generation(engine, job, prompt) for prompt in job.prompts]
    settings = job.settings() | describe_model(engine)
    finished = {} if job.out is None else _agree(lambda: _resume(job, settings, overwrite), job)
    todo = [index for index in range(len(generations)) if index not in finished]
    index_of = {engine.submit(generations[index]): index for index in todo}
    started, tell = engine.drawn_tokens, progress or (lambda *_: None)
    tell(len(finished), len(generations), 0)
    writes = job.out is not None and jax.process_index() == 0
    with job.part.open("a", encoding="utf-8") if writes else contextlib.nullcontext() as part:
        while engine.busy:
            for generation in engine.step():
                if generation.done:
                    index = index_of[generation]
                    finished[index] = _response(job, job.prompts[index], generation)
                    if part is not None:
                        part.write(json.dumps(finished[index].to_dict(), ensure_ascii=False) + "\n")
                        part.flush()
            tell(len(finished), len(generations), engine.drawn_tokens - started)
    responses = [finished[index] for index in range(len(generations))]
    if job.out is not None and writes:
        write_records(job.out, responses)
        job.part.unlink(missing_ok=True)
    return responses


def describe_model(engine: Engine) -> dict[str, Any]:
    """Return the properties of the model that responses depend on; every process must call."""
    return {
        "weights": engine.fingerprint,
        "config": hashlib.sha256(repr(engine.config).encode()).hexdigest(),
        "tokenizer": engine.tokenizer.fingerprint,
        "end_tokens": sorted(engine.tokenizer.eos_ids),
    }


def _generation(engine: Engine, job: Job, prompt: Prompt) -> Generation:
    where = f"prompt {prompt.id}"
    ids = encode_prompt(prompt.instruction, prompt.input, engine.tokenizer, job.template, where=where)
    engine.check(ids, job.sampling, where)
    seed = zlib.crc32(f"{job.sampling.seed}:{prompt.id}".encode())
    return Generation(ids, dataclasses.replace(job.sampling, seed=seed))


def _response(job: Job, prompt: Prompt, generation: Generation) -> Response:
    return Response(
        id=prompt.id,
        instruction=prompt.instruction,
        input=prompt.input,
        response=generation.text,
        model=job.model,
        finish_reason=generation.finish_reason,
        prompt_tokens=len(generation.prompt),
        response_tokens=len(generation.tokens),
        extra=_extra(prompt),
    )


def _extra(prompt: Prompt) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(Response)}
    return {key: value for key, value in prompt.extra.items() if key not in known}


# -- resuming ----------------------------------------------------------------------------------------------


def _resume(job: Job, settings: dict[str, Any], overwrite: bool) -> dict[int, Response]:
    """Return by index what an earlier run has finished, and leave a part file that is ready for more."""
    assert job.out is not None
    refuse_existing(job.out, overwrite)
    try:
        finished = _read_part(job, settings) if job.part.exists() else {}
    except DataError as error:
        if not overwrite:
            error.remedy = f"delete {job.part.name} or give --overwrite to start anew, or use another --out"
            raise
        finished = {}
    write_objects(job.part, [{"settings": settings}, *(each.to_dict() for each in finished.values())])
    return finished


def _read_part(job: Job, settings: dict[str, Any]) -> dict[int, Response]:
    """Return by index the responses of a part file; a last line that was cut off is left out.

    Raises:
        DataError: The file was made with other settings, or another line is broken.
    """
    index_of = {prompt.id: index for index, prompt in enumerate(job.prompts)}
    finished: dict[int, Response] = {}
    for number, line in enumerate(job.part.read_bytes().split(b"\n")[:-1], start=1):
        where = f"{job.part}:{number}"
        row = parse_line(line, where)
        if number == 1:
            theirs = row.get("settings")
            known = theirs if isinstance(theirs, dict) else {}
            if differing := [key for key in settings if key not in known or known[key] != settings[key]]:
                raise DataError(
                    "the unfinished work was made with other settings",
                    where=job.part,
                    found=f"other {', '.join(differing)}",
                )
            continue
        response = Response.from_dict(row, where=where)
        if response.id not in index_of:
            raise DataError("the unfinished work has an unknown id", where=where, found=response.id)
        index = index_of[response.id]
        finished[index] = dataclasses.replace(response, extra=_extra(job.prompts[index]))
    return finished


def _agree(resume: Callable[[], dict[int, Response]], job: Job) -> dict[int, Response]:
    """Read the files on process 0, and tell all processes what is finished, or that reading failed."""
    if jax.process_count() == 1:
        return resume()
    from jax.experimental import multihost_utils

    digest = np.frombuffer(bytes.fromhex(str(job.settings()["prompts"])), np.uint8)
    multihost_utils.assert_equal(digest, "the processes read different prompts")
    finished: dict[int, Response] = {}
    failure: UserError | None = None
    if jax.process_index() == 0:
        try:
            finished = resume()
        except UserError as error:
            failure = error
    state = np.zeros(len(job.prompts) + 1, np.int32)
    state[sorted(finished)] = 1
    state[-1] = failure is not None
    state = np.asarray(multihost_utils.broadcast_one_to_all(state))
    if failure is not None:
        raise failure
    if state[-1]:
        raise ServiceError("process 0 could not start", remedy="see its message")
    placeholder = Response(id="", instruction="", response="")
    return finished or {int(index): placeholder for index in np.flatnonzero(state[:-1])}
