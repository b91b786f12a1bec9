"""What a person can get wrong in a plan, as they meet it: the verb's words and its exit status."""

import importlib.util
from pathlib import Path

import pytest

from alpacare_jax.cli import main
from alpacare_jax.plan import gpus

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
SMALL = ("--layers", "1")


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str, config: str = "llama2_7b_v5e16") -> str:
    """Run `alpacare plan`, which must refuse, and return what it says; nothing may have been compiled."""
    with pytest.raises(SystemExit) as caught:
        main(["plan", "--config", str(CONFIGS / f"{config}.yaml"), *SMALL, "--no-cache", *arguments])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "fits" not in said
    return said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--topology", "v5e-17"), ("no such topology", "v5e:4x4 (v5e-16)")),
        (("--topology", "h100"), ("no such topology", "h100-80gb")),
        (("compute.attention=splsh",), ("no attention kernel of that name", "did you mean splash?")),
        (("compute.dtype=bf16",), ("compute.dtype", "did you mean bfloat16?")),
        (("compute.param_dtype=fp32",), ("compute.param_dtype", "float32, bfloat16")),
        (("optim.state_dtype=int4",), ("state_dtype", "did you mean int8?")),
        (("compute.remat=ful",), ("compute.remat", "did you mean full?")),
        (("mesh.fsdp=32",), ("fsdp=32", "on 16 devices", "v5e:4x4", "product is 16")),
        (("mesh.tensr=2",), ("did you mean mesh.tensor?",)),
        (("--layers", "99"), ("fewer layers than --layers", "at most 32")),
        (("--rows", "17"), ("17 rows", "a multiple of")),
        (("compute.attention_segments=1",), ("compute.attention_segments", "at least 2")),
    ],
)
def test_what_does_not_exist_is_named_with_the_nearest_that_does(capsys, arguments, words):
    said = refuse(capsys, *arguments)
    assert "Traceback" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("topology", "kernel", "words"),
    [
        ("v5e:4x4", "cudnn", ("cudnn: it is for NVIDIA GPUs", "take splash")),
        ("h100-80gb x16", "splash", ("splash: it is for TPUs", "take cudnn")),
        ("a100-80gb x16", "cudnn", ("Hopper or newer", "a100-80gb has 8.0", "take chunked")),
        ("l4-24gb x16", "tokamax", ("Hopper or newer", "l4-24gb has 8.9")),
    ],
)
def test_a_kernel_that_the_devices_do_not_run_is_refused_before_compilation(capsys, topology, kernel, words):
    said = refuse(capsys, "--topology", topology, f"compute.attention={kernel}")
    assert "compiling" not in said
    for word in words:
        assert word in said


def test_a_compiler_flag_that_does_not_exist_is_named_with_the_nearest(capsys, monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_enable_asynch_collective_fusion=true")
    said = refuse(capsys)
    assert "the compiler does not know a flag" in said
    assert (
        "xla_tpu_enable_asynch_collective_fusion: did you mean xla_tpu_enable_async_collective_fusion" in said
    )


def test_a_missing_compiler_says_what_to_install_and_gpus_do_without_it(capsys, monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(gpus, "own_folder", lambda: tmp_path)
    hidden = {"libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else found(name))
    assert 'pip install "alpacare-jax[plan]"' in refuse(capsys)
    config = str(CONFIGS / "llama2_7b_v5e16.yaml")
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--config", config, "--topology", "h100-80gb x16"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "model, not measured" in said
    assert "alpacare plan --fetch-gpu-compiler" in said


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("topology=v5e-17", ("no such topology", "v5e:4x4 (v5e-16)")),
        ("compute.remat=ful", ("compute.remat", "did you mean full?")),
        ("compute.attention=splsh", ("did you mean splash?",)),
        ("compute.dtype=bf16", ("did you mean bfloat16?",)),
        ("mesh.fsdp=32", ("fsdp=32", "on 8 devices")),
    ],
)
def test_a_run_refuses_the_same_before_it_opens_anything(capsys, setting, words):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--config", str(CONFIGS / "llama2_7b_v5e16.yaml"), setting])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said
