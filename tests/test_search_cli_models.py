"""`cnn-search evaluate`, `predict` and `train`: a model's file used, on a real sample of CIFAR-10."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import dataclasses
import importlib
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import sample
from conftest import Finished
from PIL import Image

from trainer.cifar10 import CLASS_NAMES
from trainer.device import count_threads
from trainer.model_file import load_model, model_to_bytes
from trainer.recipe import Recipe
from trainer.record import read_record
from trainer.training import Trainer

Cli = Callable[..., Finished]
DATA = sample.load()
IMAGES = 96
COMMAND = importlib.import_module("search.cli.train")
"""The module: as an attribute of its package, the name is the command's."""
RECIPE = Recipe(epochs=2, learning_rate=0.02, batch_size=32, seed=3)


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int | None, str | None]]:
    """The sample in place of CIFAR-10; TensorFlow runs already: with what it would be started, is noted."""
    seen: list[tuple[int | None, str | None]] = []
    monkeypatch.setattr("trainer.data.load", lambda path=None: DATA)
    monkeypatch.setattr(
        "search.runtime.start_tensorflow", lambda threads=None, gpu=None: seen.append((threads, gpu))
    )
    return seen


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """Trains on the sample's first images."""
    return Trainer(DATA.train.first(IMAGES), DATA.validation)


@pytest.fixture(scope="module")
def contents(trainer: Trainer) -> tuple[bytes, bytes]:
    """The `.h5` of two epochs, and of the same training of four."""
    whole = dataclasses.replace(RECIPE, epochs=4)
    return trainer.train(RECIPE).to_h5(IMAGES), trainer.train(whole).to_h5(IMAGES)


@pytest.fixture
def model(contents: tuple[bytes, bytes], tmp_path: Path) -> Path:
    """A file `m.h5` of two epochs, in the folder that the commands run in."""
    path = tmp_path / "m.h5"
    path.write_bytes(contents[0])
    return path


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluate_tells_all_of_the_score(split: str, model: Path, cli: Cli) -> None:
    """The confusion by numpy from Keras's own predictions; accuracy by class is its diagonal's share."""
    told = json.loads(cli("evaluate", "m.h5", "--split", split, "--json").out)

    images = DATA.validation if split == "validation" else DATA.test
    predicted = load_model(model).predict(images.images.astype(np.float32) / 255, verbose=0).argmax(axis=1)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (images.labels, predicted), 1)
    assert told["confusion"] == confusion.tolist()
    assert told["classes"] == list(CLASS_NAMES)
    for index, name in enumerate(CLASS_NAMES):
        assert told["class_accuracy"][name] == confusion[index, index] / confusion[index].sum()
    assert told["accuracy"] == confusion.trace() / len(images)
    assert (told["model"], told["split"], told["images"]) == ("m.h5", split, len(images))
    assert told["loss"] > 0


@pytest.mark.usefixtures("model")
def test_evaluate_shows_each_class(cli: Cli) -> None:
    """A line for each, with the counts of its row, that fits into 80 columns."""
    told = json.loads(cli("evaluate", "m.h5", "--json").out)
    shown = cli("evaluate", "m.h5")

    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= 80
    for name, row in zip(CLASS_NAMES, told["confusion"], strict=True):
        [line] = [line for line in lines if line.startswith(f"{name} ")]
        assert list(map(int, line.split("%")[1].split())) == row
        assert f"{100 * told['class_accuracy'][name]:.1f} %" in line


@pytest.mark.usefixtures("model")
def test_evaluate_draws_the_confusion(cli: Cli) -> None:
    """The trial page's picture, as a file."""
    shown = cli("evaluate", "m.h5", "--picture", "confusion.png")

    assert shown.out.endswith("wrote confusion.png\n")
    with Image.open("confusion.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1080, 1062))


def test_the_model_is_not_overwritten_by_its_picture(
    model: Path, contents: tuple[bytes, bytes], cli: Cli
) -> None:
    """By whatever name it is called."""
    Path("link.png").symlink_to(model)
    for place in ("m.h5", "./m.h5", "link.png"):
        refused = cli("evaluate", "m.h5", "--picture", place)
        assert (refused.code, refused.out) == (1, "")
        assert "it is the model; name a new file with --picture" in refused.err
    assert model.read_bytes() == contents[0]


def test_a_model_with_an_odd_name_is_scored_and_trained(model: Path, cli: Cli) -> None:
    """All of its output can be written, the picture's title too."""
    name = os.fsdecode(b"caf\xe9\n$\\x$ [bold]" + b"x" * 60 + b".h5")
    model.rename(name)

    scored = cli("evaluate", name, "--picture", f"{name}.png")
    assert scored.code == 0, scored.err
    assert scored.out.startswith("caf\ufffd\\n$\\x$ [bold]x")
    assert Path(f"{name}.png").exists()
    trained = cli("train", name, "--epochs", "1", "--output", f"{name}2")
    assert trained.code == 0, trained.err
    assert trained.out.startswith("wrote caf\ufffd\\n$")


@pytest.mark.usefixtures("model")
def test_a_picture_that_cannot_be_written_is_refused_first(cli: Cli) -> None:
    """Before anything is scored; the error names the option."""
    # The third is a file's name, but the one that it has until it is whole is too long.
    for place in (".", "nowhere/c.png", "a" * 248, "a" * 300):
        refused = cli("evaluate", "m.h5", "--picture", place)
        assert (refused.code, refused.out) == (1, "")
        assert f"cannot write {place}: " in refused.err
        assert "--picture" in refused.err


def test_predict_says_what_evaluate_counts(model: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test images as PNG files are taken for what `evaluate` takes them for; CIFAR-10 is not asked for."""
    expected = load_model(model).predict(DATA.test.images.astype(np.float32) / 255, verbose=0)
    names = []
    for number, image in enumerate(DATA.test.images):
        names.append(f"{number}.png")
        Image.fromarray(image).save(names[-1])
    monkeypatch.setattr("trainer.data.load", lambda *_: pytest.fail("CIFAR-10 was asked for"))

    told = json.loads(cli("predict", "m.h5", *names, "--json", "--top", "10").out)

    assert [one["file"] for one in told["pictures"]] == names
    for one, probabilities in zip(told["pictures"], expected, strict=True):
        assert one["classes"] == [CLASS_NAMES[index] for index in np.argsort(-probabilities, kind="stable")]
        np.testing.assert_allclose(one["probabilities"], -np.sort(-probabilities), rtol=1e-4, atol=1e-6)
        assert one["notes"] == []


@pytest.mark.usefixtures("model")
def test_one_bad_picture_does_not_lose_the_others(cli: Cli) -> None:
    """Results on stdout in the order given, an error line for each bad one on stderr, exit code 1."""
    Image.fromarray(DATA.test.images[0]).save("good.png")
    Image.fromarray(DATA.test.images[1]).resize((90, 60)).save("wide.jpg")
    Path("half.png").write_bytes(Path("good.png").read_bytes()[:200])
    Path("empty.png").touch()
    Path("folder").mkdir()
    names = ["missing.png", "good.png", "half.png", "folder", "wide.jpg", "empty.png"]

    shown = cli("predict", "m.h5", *names)
    told = json.loads(cli("predict", "m.h5", *names, "--json", "--top", "1").out)

    assert shown.code == 1
    lines = shown.out.splitlines()
    named = r"(\w+ \d+\.\d %, ){2}\w+ \d+\.\d %"
    assert re.fullmatch(f"good.png: {named}", lines[0])
    assert re.fullmatch(rf"wide.jpg: {named} \(cut to the square in its middle\)", lines[1])
    assert len(lines) == 2
    errors = shown.err.splitlines()
    assert [line.split(": ")[1] for line in errors] == ["missing.png", "half.png", "folder", "empty.png"]
    assert errors[0] == "cnn-search: missing.png: no such file"
    assert [one["file"] for one in told["pictures"]] == names
    assert ["error" in one for one in told["pictures"]] == [True, False, True, True, False, True]
    assert told["pictures"][5] == {"file": "empty.png", "error": "the file is empty"}


@pytest.mark.usefixtures("model")
def test_predict_reads_stdin(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `-`, by its content."""
    file = io.BytesIO()
    Image.fromarray(DATA.test.images[0]).save(file, "BMP")
    Path("same.png").write_bytes(file.getvalue())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.getvalue())))

    first, second = cli("predict", "m.h5", "-", "same.png").out.splitlines()

    assert first.removeprefix("-") == second.removeprefix("same.png")


@pytest.mark.usefixtures("model")
def test_names_with_odd_bytes_are_shown(cli: Cli) -> None:
    """A name that is no UTF-8 ends neither the text nor the JSON."""
    name = os.fsdecode(b"caf\xe9 [bold].png")
    Image.fromarray(DATA.test.images[0]).save(name)

    assert cli("predict", "m.h5", name).code == 0
    assert json.loads(cli("predict", "m.h5", name, "--json").out)["pictures"][0]["file"] == name
    assert cli("predict", "m.h5", f"{name}.png").code == 1


@pytest.mark.usefixtures("model")
def test_a_name_is_one_line(cli: Cli) -> None:
    """Line breaks and what a terminal takes for commands are escaped."""
    name = "a\nb\x1b[31m.png"
    Image.fromarray(DATA.test.images[0]).save(name)

    assert cli("predict", "m.h5", name).out.startswith("a\\nb\\x1b[31m.png: ")
    assert cli("predict", "m.h5", f"{name}x").err == "cnn-search: a\\nb\\x1b[31m.pngx: no such file\n"


@pytest.mark.usefixtures("model")
def test_a_closed_stdin_is_no_picture(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell's `<&-` leaves it."""
    monkeypatch.setattr(sys, "stdin", None)
    told = cli("predict", "m.h5", "-")
    assert (told.code, told.err) == (1, "cnn-search: -: stdin is closed\n")


@pytest.mark.parametrize("command", [("predict", "x.png"), ("evaluate",), ("train", "--epochs", "1")])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.h5", "missing.h5: no such file"),
        (".", ".: a folder; name the .h5 file in it"),
        ("/", "/: a folder"),
        ("", ".: a folder"),
        ("folder.h5", "folder.h5: a folder"),
        ("a" * 300, "cannot be read: File name too long"),
    ],
)
def test_what_is_no_file_is_no_model(cli: Cli, command: tuple[str, ...], name: str, words: str) -> None:
    """A missing model is told before pictures are, and a folder is not called missing."""
    Path("folder.h5").mkdir()
    first, *rest = command
    refused = cli(first, name, *rest)
    assert (refused.code, refused.out) == (1, "")
    [line] = refused.err.splitlines()
    assert words in line


def test_without_a_picture_nobody_waits_for_tensorflow(model: Path, python: Callable[[str], str]) -> None:
    """Bad pictures are told at once."""
    script = f"""
import contextlib, sys
from search.cli import main
sys.argv = ["cnn-search", "predict", {str(model)!r}, "nowhere.png"]
with contextlib.suppress(SystemExit), contextlib.redirect_stderr(None):
    main()
print("trainer.picture_input" in sys.modules, "tensorflow" in sys.modules)
"""
    assert python(script) == "True False\n"


def test_a_model_that_gives_no_probabilities_is_refused(cli: Cli) -> None:
    """Logits would be shown as percentages."""
    inputs = keras.Input((32, 32, 3))
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(inputs))
    Path("logits.h5").write_bytes(model_to_bytes(keras.Model(inputs, logits)))
    Image.fromarray(DATA.test.images[0]).save("a.png")

    refused = cli("predict", "logits.h5", "a.png")

    scored = cli("evaluate", "logits.h5", "--json")

    assert (refused.code, refused.out) == (1, "")
    assert "no probabilities" in refused.err
    assert "softmax" in refused.err
    assert (scored.code, scored.out) == (1, "")
    assert re.fullmatch(r"cnn-search: logits\.h5: the model gives no probabilities, .*\n", scored.err)


def test_a_model_that_diverged_is_refused(cli: Cli) -> None:
    """NaN has its own words: another last layer would not help."""
    inputs = keras.Input((32, 32, 3))
    hidden = keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(inputs))
    broken = keras.Model(inputs, hidden)
    broken.set_weights([np.nan * weight for weight in broken.get_weights()])
    Path("nan.h5").write_bytes(model_to_bytes(broken))
    Image.fromarray(DATA.test.images[0]).save("a.png")

    for command in (("evaluate", "nan.h5", "--json"), ("predict", "nan.h5", "a.png")):
        refused = cli(*command)
        assert (refused.code, refused.out) == (1, "")
        assert refused.err.startswith("cnn-search: nan.h5: the model gives NaN: its training diverged")
        assert len(refused.err.splitlines()) == 1


def test_two_epochs_and_two_more_by_the_command_are_four(
    model: Path, contents: tuple[bytes, bytes], cli: Cli, started: list[Any]
) -> None:
    """The file that training in one go leaves, with the input as it was, a line for each epoch on stderr."""
    done = cli("train", "m.h5", "--epochs", "2")

    assert done.code == 0, done.err
    assert _weights(Path("m-continued.h5").read_bytes()) == _weights(contents[1])
    assert model.read_bytes() == contents[0]
    assert re.fullmatch(
        r"wrote m-continued\.h5: 4 epochs, validation accuracy \d+\.\d\d %, loss \d+\.\d{4}\n", done.out
    )
    lines = done.err.splitlines()
    assert lines[0].startswith(
        "m.h5: 2 epochs so far by momentum at learning rate 0.02, in float32; training 2"
    )
    assert [line.split(":")[0] for line in lines[1:]] == ["epoch 3/4", "epoch 4/4"]
    # TensorFlow starts with the threads that the file had.
    assert started == [(count_threads(), "-1")]


@pytest.mark.usefixtures("model")
def test_train_tells_its_result_as_json(cli: Cli) -> None:
    """With every epoch so far, and the score that `evaluate` gives."""
    told = json.loads(cli("train", "m.h5", "--epochs", "1", "--output", "new.h5", "--json").out)
    scored = json.loads(cli("evaluate", "new.h5", "--json").out)

    assert (told["model"], told["output"], told["epochs"], told["epochs_now"]) == ("m.h5", "new.h5", 3, 1)
    assert [one["epoch"] for one in told["history"]] == [1, 2, 3]
    assert (told["accuracy"], told["loss"]) == (scored["accuracy"], scored["loss"])


def test_what_is_there_is_not_lost_by_a_default(model: Path, cli: Cli) -> None:
    """The default output must be new; a name that is given may be anything, the input too."""
    Path("m-continued.h5").write_bytes(b"mine")

    refused = cli("train", "m.h5", "--epochs", "1")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == (
        "cnn-search: m-continued.h5 exists already; name it, or another file, with --output\n"
    )
    assert Path("m-continued.h5").read_bytes() == b"mine"
    assert cli("train", "m.h5", "--epochs", "1", "--output", "m.h5").code == 0
    record = read_record(model.read_bytes())
    assert record is not None
    assert len(record.history) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_done(
    number: int, model: Path, contents: tuple[bytes, bytes], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last full epoch is stored, the exit code is 130, and the command that is told goes on exactly."""
    before = signal.getsignal(signal.SIGTERM)
    _call_at(monkeypatch, "epoch 3/", lambda: os.kill(os.getpid(), number))

    stopped = cli("train", "m.h5", "--epochs", "2")

    assert stopped.code == 130
    assert stopped.out.startswith("wrote m-continued.h5: 3 epochs")
    assert stopped.err.splitlines()[-1] == (
        "cnn-search: interrupted after 1 of 2 epochs, which m-continued.h5 has; "
        "cnn-search train m-continued.h5 --epochs 1 goes on"
    )
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    monkeypatch.chdir(model.parent)
    monkeypatch.setattr("trainer.data.load", lambda path=None: DATA)
    monkeypatch.setattr("search.runtime.start_tensorflow", lambda *_: None)
    assert cli("train", "m-continued.h5", "--epochs", "1", "--output", "whole.h5").code == 0
    assert _weights(Path("whole.h5").read_bytes()) == _weights(contents[1])


@pytest.mark.parametrize("named", [True, False])
def test_the_command_that_goes_on_can_be_typed(
    named: bool, model: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are quoted; what no file tells is kept; an output that is taken, or was chosen, is named."""
    model.rename("my model.h5")
    Path("my model-continued-continued.h5").touch()
    monkeypatch.setenv("CNN_SEARCH_LOCKS", "locks")
    _call_at(monkeypatch, "epoch 3/", lambda: os.kill(os.getpid(), signal.SIGINT))

    where = ("--data", "a b", "--device", "cpu", "--allow-cpu")
    output = ("--output", "-whole.h5") if named else ()
    stopped = cli("train", "my model.h5", "--epochs", "3", *where, *output, "--seed", "5")

    name, target = ("./-whole.h5", "-whole.h5") if named else ("'my model-continued.h5'",) * 2
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1].endswith(
        f" has; cnn-search train {name} --epochs 2 --output {target} --data 'a b' --device cpu --allow-cpu"
        " goes on"
    )


@pytest.mark.usefixtures("model")
def test_an_interrupt_before_the_first_epoch_writes_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing that the input does not have."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.training._train_epoch", interrupted)

    stopped = cli("train", "m.h5", "--epochs", "2")

    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err.splitlines()[-1].endswith("nothing was written")
    assert os.listdir() == ["m.h5"]


@pytest.mark.usefixtures("model")
def test_a_long_training_is_stored_on_its_way(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever kills the process loses a minute, not the night."""
    monkeypatch.setattr(COMMAND, "STORE_SECONDS", 0.0)
    epochs: list[int] = []

    def look() -> None:
        record = read_record(Path("m-continued.h5").read_bytes())
        assert record is not None
        epochs.append(len(record.history))

    _call_at(monkeypatch, "epoch 4/", look)

    assert cli("train", "m.h5", "--epochs", "2").code == 0
    assert epochs == [3]


@pytest.mark.usefixtures("model")
def test_a_training_that_diverges_fails_and_keeps_what_was_good(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the epoch, and exit code 1; what was changed for it is told too."""
    monkeypatch.setattr("trainer.training._is_finite", lambda state: len(state.history) < 4)

    failed = cli("train", "m.h5", "--epochs", "3", "--learning-rate", "0.1")

    assert failed.code == 1
    assert "with learning rate 0.1 as asked for: not exactly the training that stopped" in failed.err
    assert failed.out.startswith("wrote m-continued.h5: 3 epochs")
    assert failed.err.splitlines()[-1].startswith(
        "cnn-search: epoch 4 diverged (a loss or weight is no number) after 1 of 3 epochs"
    )
    # The same again would diverge again.
    assert failed.err.splitlines()[-1].endswith(
        "; cnn-search train m-continued.h5 --epochs 2 --learning-rate 0.01 goes on"
    )


@pytest.mark.usefixtures("model")
def test_a_training_that_diverges_at_once_is_told_a_lower_rate(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written."""
    monkeypatch.setattr("trainer.training._is_finite", lambda state: False)

    failed = cli("train", "m.h5", "--epochs", "3")

    assert (failed.code, failed.out) == (1, "")
    assert failed.err.splitlines()[-1].endswith(
        "nothing was written; try a lower rate, such as --learning-rate 0.002"
    )
    assert os.listdir() == ["m.h5"]


def test_a_stretched_schedule_is_said(trainer: Trainer, cli: Cli) -> None:
    """With the rate of the epoch that follows, and each epoch's own."""
    recipe = dataclasses.replace(RECIPE, schedule="step")
    Path("step.h5").write_bytes(trainer.train(recipe).to_h5(IMAGES))

    done = cli("train", "step.h5", "--epochs", "4")

    lines = done.err.splitlines()
    assert lines[0] == (
        "step.h5: 2 epochs so far by momentum at learning rate 0.02 with schedule step, in float32; "
        "training 4 more, for which the schedule is stretched from 2 to 6 epochs: "
        "the next one's learning rate is 0.02; the last one's was 0.002"
    )
    rates = [line.split("learning rate ")[1].split(",")[0] for line in lines[1:]]
    assert rates == ["0.02", "0.002", "0.002", "0.002"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--epochs", "1", "--learning-rate", "nan"), "nan is not a learning rate"),
        (("--epochs", "9999"), "m.h5 has had 2 epochs, and 9,999 more are above the 10,000"),
        (("--epochs", "1", "--threads", "5000"), "threads"),
    ],
)
@pytest.mark.usefixtures("model")
def test_wrong_numbers_are_wrong_usage(cli: Cli, options: tuple[str, ...], words: str) -> None:
    """Told in the terms of what was typed, before anything is trained."""
    refused = cli("train", "m.h5", *options)
    assert (refused.code, refused.out) == (2, "")
    assert words in refused.err
    assert len(refused.err.splitlines()) == 1


def test_what_help_says_of_defaults_is_so(cli: Cli) -> None:
    """It cannot wait for the modules that own them."""
    from trainer.continuation import ASSUMED
    from trainer.record import MOST_THREADS

    told = " ".join(cli("train", "--help").out.split())
    assert f"{ASSUMED.batch_size} where it tells none" in told
    assert f"{ASSUMED.seed} where it tells none" in told
    assert COMMAND.MOST_THREADS == MOST_THREADS


def test_a_model_from_elsewhere_goes_on_with_what_is_assumed(cli: Cli) -> None:
    """The article's own code leaves such a file: Keras alone, categorical labels, no record."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.MaxPooling2D(4),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "categorical_crossentropy", metrics=["accuracy"])
    Path("theirs.h5").write_bytes(model_to_bytes(model))
    small = ("--train-samples", "64", "--learning-rate", "0.02")

    done = cli("train", "theirs.h5", "--epochs", "2", *small, "--output", "two.h5")
    once = cli("train", "theirs.h5", "--epochs", "1", *small, "--output", "one.h5")
    again = cli("train", "one.h5", "--epochs", "1", "--output", "one-and-one.h5")

    assert done.code == 0, done.err
    assert "its training is not recorded; training 2 more" in done.err
    assert "assumed: batches of 64, seed 0; epochs are counted from here" in done.err
    assert "  with learning rate 0.02, training images 64 as asked for\n" in done.err
    assert "epoch 2/2: loss " in done.err
    assert once.out.startswith("wrote one.h5: 1 epoch, ")
    assert "1 epoch since it came from elsewhere" in again.err
    assert _weights(Path("one-and-one.h5").read_bytes()) == _weights(Path("two.h5").read_bytes())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.h5"], "missing.h5: no such file"),
        (["text.h5"], "text.h5: not an .h5 model"),
        (["m.h5", "--output", "nowhere/x.h5"], "cannot write nowhere/x.h5: "),
        (["m.h5", "--output", "."], "cannot write .: it is no regular file"),
        (["half.h5"], "half.h5: a damaged HDF5 file"),
    ],
)
@pytest.mark.usefixtures("model")
def test_what_cannot_be_trained_is_refused(cli: Cli, arguments: list[str], words: str) -> None:
    """In one line, before anything is trained."""
    Path("text.h5").write_text("no model")
    Path("half.h5").write_bytes(Path("m.h5").read_bytes()[:1000])

    refused = cli("train", *arguments, "--epochs", "1")

    assert (refused.code, refused.out) == (1, "")
    assert words in refused.err
    assert len(refused.err.splitlines()) == 1


def _weights(content: bytes) -> list[bytes]:
    from trainer.model_file import model_from_bytes

    return [weight.tobytes() for weight in model_from_bytes(content).get_weights()]


def _call_at(monkeypatch: pytest.MonkeyPatch, words: str, action: Callable[[], None]) -> None:
    """Do something when the command says these words."""
    from search.cli import terminal

    def say(message: str) -> None:
        terminal.say(message)
        if message.startswith(words):
            action()

    monkeypatch.setattr(COMMAND, "say", say)
