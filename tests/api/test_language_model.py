"""A model as a notebook uses it: logits as transformers', replies, export; nothing given is consumed."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import alpacare_jax as alpacare
from alpacare_jax.errors import ConfigError, ConversionError, DataError

TOKENS = np.random.default_rng(0).integers(2, 258, (3, 17))


@pytest.fixture(scope="module")
def model(tiny):
    return alpacare.load(tiny, dtype="float32")


def test_importing_is_quick_and_leaves_jax_out():
    code = "import sys, time; t = time.perf_counter(); import alpacare_jax as a; took = time.perf_counter() - t; "
    code += "assert not {'jax', 'flax', 'numpy'} & set(sys.modules); assert 'load' in dir(a); print(took)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3


def test_every_public_name_is_there():
    for name in alpacare.__all__:
        assert getattr(alpacare, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        alpacare.lode  # noqa: B018


@pytest.mark.torch
def test_logits_and_logprobs_are_those_of_transformers_on_every_mesh(tiny, model):
    import torch
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS)).logits.float()
    scores = torch.log_softmax(expected, -1)[:, :-1].gather(-1, torch.tensor(TOKENS)[:, 1:, None])[..., 0]
    for loaded in (model, alpacare.load(tiny, dtype="float32", mesh=alpacare.Mesh(fsdp=-1, context=2))):
        assert np.abs(np.asarray(loaded.logits(TOKENS)) - expected.numpy()).max() < 1e-5
        assert np.abs(np.asarray(loaded.logprobs(TOKENS.tolist())) - scores.numpy()).max() < 1e-5


def test_dtype_and_precision_are_what_was_asked_for(tiny, model):
    assert model.compute.precision == "default"
    assert alpacare.load(tiny, precision="highest").compute.precision == "highest"
    narrow = alpacare.load(tiny, dtype="bfloat16")
    assert (
        narrow.compute.dtype == narrow.compute.param_dtype == str(narrow.params["embed"].dtype) == "bfloat16"
    )
    assert "bfloat16" in repr(narrow)


def test_replies_come_for_a_text_a_list_and_conversations(model):
    asked = "Name a sign of fever."
    one = model.generate(asked, max_tokens=5)
    assert isinstance(one, str)
    assert model.generate([asked, asked], max_tokens=5) == [one, one]
    assert model.generate([], max_tokens=5) == []
    messages = [{"role": "user", "content": asked}]
    chat = model.generate(messages, max_tokens=5)
    assert chat == model.generate(asked, template="chat", max_tokens=5)
    assert model.generate([messages, messages], max_tokens=5) == [chat, chat]
    plain = model.generate(f"<user>{asked}</s><assistant>", template=None, max_tokens=5)
    assert plain == chat, "None takes the text as it is"


def test_a_text_as_it_is_begins_as_the_tokenizer_begins_texts(model, monkeypatch):
    plain = model.tokenizer.encode("Fever")
    monkeypatch.setattr(model.tokenizer, "adds_bos", True)
    monkeypatch.setattr(model.tokenizer, "bos_id", 1)
    assert model._encode("Fever", None) == [1, *plain]


def test_what_is_saved_gives_the_same_logits(model, tmp_path):
    model.save_pretrained(tmp_path / "out")
    again = alpacare.load(tmp_path / "out")
    assert np.array_equal(again.logits(TOKENS), model.logits(TOKENS))
    model.save_pretrained(tmp_path / "out", dtype="bfloat16", overwrite=True)
    assert alpacare.load(tmp_path / "out").compute.dtype == "bfloat16"


def test_a_run_started_from_a_model_gets_copies(model):
    taken = model.found().read(model.mesh, None)
    jax.tree.map(lambda leaf: leaf.delete(), taken)
    assert model.logits(TOKENS).shape == (3, 17, 264)


@pytest.mark.parametrize(
    ("use", "error", "named"),
    [
        (lambda m, _: alpacare.load("/nowhere"), ConversionError, "/nowhere"),
        (lambda m, at: alpacare.load(at, dtype="float16"), ConfigError, "float32 or bfloat16"),
        (lambda m, at: alpacare.load(at, precision="high"), ConfigError, "precision"),
        (lambda m, _: m.logits([1, 2]), DataError, r"[B, T]"),
        (lambda m, _: m.logits([[1.0, 2.0]]), DataError, "float64"),
        (lambda m, _: m.logprobs([[1, 264]]), DataError, "0 to 263"),
        (lambda m, _: m.generate("Hello", template="alpacca"), ConfigError, "alpaca or chat"),
        (lambda m, _: m.generate("Hello", temperature=-1), DataError, "temperature"),
        (lambda m, _: m.generate("Hello", temprature=1), ConfigError, "did you mean temperature?"),
        (lambda m, _: m.generate("Hello", temperature="1"), DataError, "temperature must be a number, not"),
        (lambda m, _: m.generate("x" * 600, template=None), DataError, "511"),
        (lambda m, at: m.save_pretrained(at / "a", dtype="int4"), ConfigError, "bfloat16"),
        (lambda m, at: m.save_pretrained(at), DataError, "exists"),
    ],
)
def test_a_wrong_argument_raises_the_typed_error(model, tiny, use, error, named):
    with pytest.raises(error) as caught:
        use(model, tiny)
    assert named in str(caught.value)
    if error is DataError:
        assert model.generate("Hi", max_tokens=1) is not None, "the model can go on"
