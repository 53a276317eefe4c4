"""Experiment files: validation, messages, overrides, and writing them back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from photonloop.controller.experiment import Experiment, as_toml, load_experiment
from photonloop.protocols.config import ConfigError

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = 'name = "x"\n[data]\nsource = "iris"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.name)
def test_examples_are_unchanged_by_writing_and_loading(example: Path, tmp_path: Path) -> None:
    experiment = load_experiment(example)
    assert load_experiment(write(tmp_path, as_toml(experiment))) == experiment


def test_every_default_is_written_out(tmp_path: Path) -> None:
    text = as_toml(load_experiment(write(tmp_path, SMALL)))
    for line in ('probe_step_rad = "auto"', "beta2 = 0.999", 'loss = "softmax"', "checkpoint_s = 10.0", 'device = "sim:soi"'):
        assert line in text


def test_overrides_set_values_in_tables(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    options = ["training.epochs=5", "rule.loss=cosine", "estimator.probe_step_rad=0.1", 'name="y"', "data.source = digits"]
    experiment = load_experiment(path, options, device="sim:ideal")
    assert experiment.training.epochs == 5
    assert experiment.rule.loss == "cosine"
    assert experiment.estimator.probe_step_rad == 0.1
    assert (experiment.name, experiment.data.source, experiment.device) == ("y", "digits", "sim:ideal")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (SMALL + "[training]\nepoch = 3\n", "unknown key 'training.epoch'; did you mean 'epochs'?"),
        (SMALL + "[trainin]\nepochs = 3\n", "unknown key 'trainin'; did you mean 'training'?"),
        (SMALL + "[training]\nepochs = 0\n", "training.epochs is 0, but should be greater than or equal to 1"),
        (SMALL + "[estimator]\nprobe_step_rad = -1.0\n", "estimator.probe_step_rad is -1.0, but should be greater than 0"),
        (SMALL + '[estimator]\nname = "spas"\n', "estimator.name is 'spas', but should be 'directional' or 'spsa'"),
        (SMALL + "[network]\nports = 'many'\n", "network.ports is 'many', but should be a valid integer"),
        ('[data]\nsource = "iris"\n', "key 'name' is missing"),
        ("name = \n", "is not TOML"),
        (SMALL + "[optimizer]\nrate = 1e308\n", "optimizer.rate is 1e+308, but should be less than or equal to 1000000"),
        (SMALL + "[training]\nepochs = true\n", "training.epochs is True, but should be a valid integer"),
        (SMALL + "[training]\npipelined = 0\n", "training.pipelined is 0, but should be a valid boolean"),
        (SMALL + "[training]\nepochs = 10000000000\n", "training.epochs is 10000000000, but should be less than or equal to"),
        (SMALL + "split_seed = 99999999999\n", "data.split_seed is 99999999999, but should be less than or equal to 4294967295"),
        (SMALL + "[rule]\nmargin = 1e308\n", "rule.margin is 1e+308, but should be less than or equal to 10000"),
    ],
)
def test_invalid_files_are_refused_with_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(write(tmp_path, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_malformed_overrides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_experiment(tmp_path / "none.toml")
    path = write(tmp_path, SMALL)
    with pytest.raises(ConfigError, match="not of the form key=value"):
        load_experiment(path, ["training.epochs"])
    with pytest.raises(ConfigError, match="'name' is a value, not a table"):
        load_experiment(path, ["name.x=3"])


@pytest.mark.parametrize("word", ["2024", "true", "1e3", "2024-01-01", "inf", "0x10", '"2024"'])
def test_text_keys_accept_text_that_parses_as_another_type(tmp_path: Path, word: str) -> None:
    path = write(tmp_path, SMALL)
    assert load_experiment(path, [f"name={word}"]).name == word.strip('"')
    assert load_experiment(path, ["data.source=mnist", f"data.path={word}"]).data.path == word.strip('"')


@pytest.mark.parametrize("word", ["cosine", '"cosine"', " cosine "])
def test_choices_may_be_written_without_quotes(tmp_path: Path, word: str) -> None:
    assert load_experiment(write(tmp_path, SMALL), [f"rule.loss={word}"]).rule.loss == "cosine"


def test_an_override_cannot_set_a_second_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.epochs is '1\\nseed = 9', but should be a valid integer"):
        load_experiment(write(tmp_path, SMALL), ["training.epochs=1\nseed = 9"])


def numbers(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numbers(field.annotation, f"{path}{name}.")
        elif "float" in str(field.annotation) or "int" in str(field.annotation):
            yield path + name


@pytest.mark.parametrize("key", list(numbers(Experiment)))
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-nan"])
def test_nan_and_infinity_are_refused(tmp_path: Path, key: str, value: str) -> None:
    *tables, name = key.split(".")
    text = f"{SMALL}{name} = {value}\n" if tables == ["data"] else f"{name} = {value}\n{SMALL}"
    if tables and tables != ["data"]:
        text = f"{SMALL}[{tables[0]}]\n{name} = {value}\n"
    attempts = (
        lambda: load_experiment(write(tmp_path, text)),
        lambda: load_experiment(write(tmp_path, SMALL), [f"{key}={value}"]),
    )
    for attempt in attempts:
        with pytest.raises(ConfigError, match=f"{key} is -?(nan|inf), but should be ") as caught:
            attempt()
        assert "\n" not in str(caught.value)
