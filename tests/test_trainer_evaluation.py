"""trainer.evaluation: a model's score against numpy's own, on a real sample of CIFAR-10."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import math

import keras
import numpy as np
import pytest
import sample
import tensorflow as tf

from trainer import evaluation
from trainer.cifar10 import Split
from trainer.device import DeviceSplit
from trainer.evaluation import Evaluator, Score
from trainer.model import build_model
from trainer.recipe import Recipe

DATA = sample.load()
SPLIT = DATA.validation


def test_a_score_is_numpys() -> None:
    """Accuracy and mean cross-entropy are those of `model.predict`, by numpy."""
    model = _varied_model(0)
    score = Evaluator(DeviceSplit.of(SPLIT)).score(model)
    expected = _score_by_numpy(model, SPLIT)
    _assert_equal(score, expected)
    assert score.images == len(SPLIT) == 80
    assert 0 < score.accuracy < 1


def test_the_confusion_counts_images_by_true_and_predicted_class() -> None:
    """Rows are the labels, columns the predictions; its sum is the images, its trace the hits."""
    model = _varied_model(7)
    score = Evaluator(DeviceSplit.of(SPLIT)).score(model)

    assert score.confusion.shape == (10, 10)
    assert np.issubdtype(score.confusion.dtype, np.integer)
    np.testing.assert_array_equal(score.confusion.sum(axis=1), np.bincount(SPLIT.labels, minlength=10))
    predicted = _predict(model, SPLIT).argmax(axis=1)
    np.testing.assert_array_equal(score.confusion.sum(axis=0), np.bincount(predicted, minlength=10))
    assert score.confusion.sum() == score.images
    assert score.confusion.trace() / score.images == score.accuracy
    # Some are taken for other classes, and not symmetrically: the transpose would be found out.
    assert (score.confusion != score.confusion.T).any()


def test_a_score_cannot_be_changed() -> None:
    """Nor can what it counted."""
    score = Evaluator(DeviceSplit.of(SPLIT)).score(_varied_model(0))
    with pytest.raises(ValueError, match="read-only"):
        score.confusion[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        score.hits[0] = True
    with pytest.raises(AttributeError):
        score.accuracy = 1.0  # type: ignore[misc]


def test_a_score_stays_as_it_is_when_others_follow() -> None:
    """Its counts are not the program's own memory, which the next model's would fill."""
    evaluator = Evaluator(DeviceSplit.of(SPLIT))
    score = evaluator.score(_varied_model(0))
    before = score.confusion.copy()
    for seed in range(1, 4):
        assert (evaluator.score(_varied_model(seed)).confusion != before).any()
    np.testing.assert_array_equal(score.confusion, before)


@pytest.mark.parametrize("batch", [1, 7, 79, 80, 81])
def test_every_image_counts_once_whatever_the_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last batch that is smaller, a single batch and batches of one give the same score."""
    monkeypatch.setattr(evaluation, "BATCH", batch)
    model = _varied_model(1)
    score = Evaluator(DeviceSplit.of(SPLIT)).score(model)
    _assert_equal(score, _score_by_numpy(model, SPLIT))


def test_more_images_than_a_batch_and_no_multiple_of_it() -> None:
    """500 real images and 20 of them again, at the batch size that is used."""
    images, labels = np.concatenate([DATA.x_train, DATA.x_test]), np.concatenate([DATA.y_train, DATA.y_test])
    split = Split(np.concatenate([images, images[:20]]), np.concatenate([labels, labels[:20]]))
    assert len(split) % evaluation.BATCH not in (0, len(split))
    model = _varied_model(2)
    score, expected = Evaluator(DeviceSplit.of(split)).score(model), _score_by_numpy(model, split)
    _assert_equal(score, expected)
    assert score.images == 520


def test_a_score_in_pieces_is_the_same_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit; between them somebody may look, and end it."""
    model, evaluator = _varied_model(2), Evaluator(DeviceSplit.of(SPLIT))
    monkeypatch.setattr(evaluation, "BATCH", 10)
    whole = evaluator.score(model)
    monkeypatch.setattr(evaluation, "PIECE", 30)
    looks: list[int] = []

    score = evaluator.score(model, lambda: looks.append(1))

    assert len(looks) == -(-len(SPLIT) // 30) - 1
    assert (score.loss, score.accuracy, score.images) == (whole.loss, whole.accuracy, whole.images)
    np.testing.assert_array_equal(score.confusion, whole.confusion)

    def end() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluator.score(model, end)


def test_one_trace_serves_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring other models, with other rates, runs the program that the first score traced."""
    calls = 0
    scale = evaluation.scale

    def counted(images: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        nonlocal calls
        calls += 1
        return scale(images, dtype)

    # Python runs while a program is traced, and not when it is run again.
    monkeypatch.setattr(evaluation, "scale", counted)
    evaluator = Evaluator(DeviceSplit.of(SPLIT))
    first = evaluator.score(_varied_model(0))
    traced = calls
    assert traced > 0
    assert evaluator.score(_varied_model(1)).loss != first.loss
    assert evaluator.score(build_model(Recipe(0.9, 0.9, 0.9, 0.9, seed=4))).loss != first.loss
    assert calls == traced


def test_scoring_again_gives_the_same_score() -> None:
    """A score depends on the model alone, not on those scored before, nor on dropout."""
    evaluator = Evaluator(DeviceSplit.of(SPLIT))
    model = _varied_model(3)
    first = evaluator.score(model)
    evaluator.score(_varied_model(4))
    for again in (evaluator.score(model), Evaluator(DeviceSplit.of(SPLIT)).score(model)):
        assert (again.loss, again.accuracy, again.images) == (first.loss, first.accuracy, first.images)
        np.testing.assert_array_equal(again.confusion, first.confusion)


def test_scoring_leaves_the_model_alone() -> None:
    """The model's weights are the same after its score."""
    model = _varied_model(5)
    before = [weight.tobytes() for weight in model.get_weights()]
    Evaluator(DeviceSplit.of(SPLIT)).score(model)
    assert [weight.tobytes() for weight in model.get_weights()] == before


@pytest.mark.parametrize("favourite", [0, 3, 9])
def test_a_constant_model_scores_its_class_share(favourite: int) -> None:
    """A model that gives every image the same distribution has the loss and accuracy that follow from it."""
    distribution = np.full(10, 0.05)
    distribution[favourite] = 0.55
    score = Evaluator(DeviceSplit.of(SPLIT)).score(_constant_model(np.log(distribution)))
    assert score.accuracy == np.mean(SPLIT.labels == favourite)
    # Every class in one column: what a class is taken for, not what is taken for it.
    np.testing.assert_array_equal(score.confusion[:, favourite], np.bincount(SPLIT.labels, minlength=10))
    assert score.confusion.sum() == score.images
    assert score.loss == pytest.approx(-np.log(distribution)[SPLIT.labels].mean(), rel=1e-6)


def test_a_model_that_knows_nothing_has_the_loss_of_chance() -> None:
    """Ten equal probabilities cost ln 10."""
    assert Evaluator(DeviceSplit.of(SPLIT)).score(_constant_model(np.zeros(10))).loss == pytest.approx(
        math.log(10), rel=1e-6
    )


def test_a_model_that_is_sure_and_wrong_has_a_finite_loss() -> None:
    """A probability of zero for the true class costs much, but not infinitely much."""
    logits = np.zeros(10)
    logits[0] = 1000
    score = Evaluator(DeviceSplit.of(SPLIT)).score(_constant_model(logits))
    share = np.mean(SPLIT.labels == 0)
    assert score.accuracy == share
    # Keras clips probabilities at 1e-7 where it does not find the logits behind them.
    assert (1 - share) * -math.log(1.1e-7) < score.loss < math.inf


def test_a_single_image_can_be_scored() -> None:
    """A split of one is right or wrong."""
    model = _varied_model(6)
    score = Evaluator(DeviceSplit.of(SPLIT.first(1))).score(model)
    assert score.images == 1
    assert score.accuracy in (0.0, 1.0)
    expected = _score_by_numpy(model, SPLIT.first(1))
    assert score.loss == pytest.approx(expected.loss, rel=1e-4)
    np.testing.assert_array_equal(score.confusion, expected.confusion)
    np.testing.assert_array_equal(score.hits, expected.hits)


def test_bytes_are_scaled_to_the_unit_interval() -> None:
    """0 is 0, 255 is 1, and the rest lies between them in proportion."""
    scaled = evaluation.scale(tf.constant(np.arange(256, dtype=np.uint8)), tf.float32)
    assert scaled.dtype == tf.float32
    np.testing.assert_array_equal(scaled, np.arange(256, dtype=np.float32) / np.float32(255))


def test_hits_are_where_the_label_has_the_largest_score() -> None:
    """Logits and probabilities alike, of whichever sign."""
    scores = tf.constant([[0.1, 0.9, 0.0], [-5.0, -7.0, -9.0], [0.2, 0.3, 0.1]])
    assert int(evaluation.count_hits(tf.constant([1, 0, 2]), scores)) == 2
    assert int(evaluation.count_hits(tf.constant([0, 1, 0]), scores)) == 0


def _varied_model(seed: int) -> keras.Model:
    """A model whose outputs are far from uniform, so that every image's score counts."""
    model = build_model(Recipe(seed=seed))
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(0, 0.07, weight.shape) for weight in model.get_weights()])
    return model


def _constant_model(logits: np.ndarray) -> keras.Model:
    """A model that gives every image the softmax of `logits`."""
    model = build_model(Recipe())
    weights = [np.zeros_like(weight) for weight in model.get_weights()]
    weights[-1] = logits.astype(np.float32)
    model.set_weights(weights)
    return model


def _predict(model: keras.Model, split: Split) -> np.ndarray:
    """The probabilities, float64 (n, 10), by Keras's own prediction."""
    images = split.images.astype(np.float32) / 255
    return np.asarray(model.predict(images, verbose=0), np.float64)


def _score_by_numpy(model: keras.Model, split: Split) -> Score:
    probabilities = _predict(model, split)
    losses = -np.log(probabilities[np.arange(len(split)), split.labels])
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((10, 10), np.int32)
    np.add.at(confusion, (split.labels, predicted), 1)
    hits = predicted == split.labels
    return Score(float(losses.mean()), float(hits.mean()), len(split), confusion, hits)


def _assert_equal(score: Score, expected: Score) -> None:
    """Counts to the image, the loss as far as float32 goes."""
    assert (score.accuracy, score.images) == (expected.accuracy, expected.images)
    assert score.loss == pytest.approx(expected.loss, rel=1e-5)
    np.testing.assert_array_equal(score.confusion, expected.confusion)
    np.testing.assert_array_equal(score.hits, expected.hits)
