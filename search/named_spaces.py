"""The spaces that a user can name, each range with its reason."""

from collections.abc import Mapping
from typing import Final

from search.ranges import Choices, NumberRange, Range
from search.space import Space
from trainer.recipe import ARTICLE, OPTIMIZERS, SCHEDULES

_DROPOUT_REASON: Final = (
    "from none to a little over the 0.2-0.5 usual for hidden units"
    " (Srivastava et al. 2014, JMLR 15, appendix A); the article has {article}"
)

_ARTICLE: Final[tuple[Range, ...]] = (
    *(
        NumberRange(field, 0.0, 0.6, reason=_DROPOUT_REASON.format(article=getattr(ARTICLE, field)))
        for field in ("dropout_block1", "dropout_block2", "dropout_block3", "dropout_dense")
    ),
    NumberRange(
        "learning_rate",
        1e-4,
        1e-1,
        log=True,
        reason="ratios matter, not differences (Bengio 2012, arXiv:1206.5533); holds the"
        " article's 0.01, Adam's usual 0.001, and the 0.1 at which plain SGD steps as far as momentum"
        " 0.9 does at 0.01",
    ),
    Choices("optimizer", OPTIMIZERS, reason="the article names another optimizer as its next step"),
    NumberRange(
        "epochs",
        5,
        200,
        log=True,
        reason="each doubling of the cost is equally likely; 200 is the article's longest run",
    ),
)

_SCHEDULES: Final[tuple[Range, ...]] = (
    NumberRange(
        "batch_size",
        32,
        256,
        log=True,
        reason="ratios matter; half of the article's 64 (small batches generalise best: Masters and Luschi"
        " 2018, arXiv:1804.07612) to four times it, beyond which an epoch has few steps",
    ),
    Choices(
        "schedule",
        SCHEDULES,
        reason="the article names LearningRateScheduler and ReduceLROnPlateau; cosine: Loshchilov and Hutter"
        " 2017, arXiv:1608.03983; warm-up: Goyal et al. 2017, arXiv:1706.02677",
    ),
    NumberRange(
        "step_at", 0.3, 0.95, reason="share of the epochs; the article steps at 170 of 200 epochs, 0.85"
    ),
    NumberRange(
        "step_factor",
        0.05,
        0.5,
        log=True,
        reason="around the usual 0.1 (He et al. 2016, arXiv:1512.03385) and 0.2 (Zagoruyko and Komodakis"
        " 2016, arXiv:1605.07146)",
    ),
    NumberRange(
        "warmup",
        0.02,
        0.2,
        log=True,
        reason="share of the epochs; Goyal et al. warm up for 5 of 90, 0.056",
    ),
    NumberRange(
        "plateau_patience",
        0.02,
        0.2,
        log=True,
        reason="share of the epochs; around 10 of 100, ReduceLROnPlateau's default",
    ),
    NumberRange("plateau_factor", 0.05, 0.5, log=True, reason="around 0.1, ReduceLROnPlateau's default"),
    NumberRange(
        "weight_decay",
        0.0,
        0.005,
        reason="from the article's none over 0.0005 (Zagoruyko and Komodakis 2016) to Keras's 0.004 for"
        " AdamW; linear, because a log range has no 0",
    ),
    NumberRange(
        "label_smoothing",
        0.0,
        0.2,
        reason="from none to twice the usual 0.1 (Szegedy et al. 2016, arXiv:1512.00567)",
    ),
)

NAMED: Final[Mapping[str, Space]] = {
    space.name: space
    for space in (
        Space("article", _ARTICLE),
        Space("schedules", (*_ARTICLE, *_SCHEDULES)),
    )
}
"""The spaces that `--space NAME` knows; the article's recipe is a point of each."""
