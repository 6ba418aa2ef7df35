"""The spaces that a user can name, each range with its reason."""

from collections.abc import Mapping
from typing import Final

from search.ranges import Choices, NumberRange, Range
from search.space import Space
from trainer.recipe import ACTIVATIONS, ARTICLE, HEADS, OPTIMIZERS, SCHEDULES

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

_BOOLEAN: Final = (False, True)

_AUGMENTED: Final[tuple[Range, ...]] = (
    Choices(
        "flip",
        _BOOLEAN,
        reason="the article names it; no class of CIFAR-10 changes by it (Krizhevsky et al. 2012, NIPS 25)",
    ),
    NumberRange(
        "shift",
        0.0,
        0.16,
        reason="the article names it; from none to 5 pixels, around the usual 4 (He et al. 2016)",
    ),
    NumberRange(
        "rotation",
        0.0,
        20.0,
        reason="the article names it; degrees, from none to a little over 15, as is common",
    ),
    NumberRange(
        "zoom",
        0.0,
        0.2,
        reason="the article's rescale; from none to a fifth either way, beyond which small objects leave the"
        " picture",
    ),
    NumberRange(
        "cutout",
        0,
        20,
        reason="pixels; from none to a little over the best side for CIFAR-10, 16 (DeVries and Taylor 2017,"
        " arXiv:1708.04552)",
    ),
    Choices("whitening", _BOOLEAN, reason="the article names it"),
)

_ARCHITECTURE: Final[tuple[Range, ...]] = (
    Choices(
        "activation",
        ACTIVATIONS,
        reason="the article names other activations; elu: Clevert et al. 2016, arXiv:1511.07289; gelu:"
        " Hendrycks and Gimpel 2016, arXiv:1606.08415; silu: Ramachandran et al. 2017, arXiv:1710.05941",
    ),
    NumberRange(
        "width",
        0.5,
        2.0,
        log=True,
        reason="ratios matter; half to twice the article's filters, a quarter to four times the work",
    ),
    NumberRange(
        "blocks", 2, 4, reason="around the article's 3; after 4 an image is 2 pixels wide, after 2 it is 8"
    ),
    NumberRange(
        "convolutions",
        1,
        2,
        reason="the article's 1, or 2 as in VGG, which it names (Simonyan and Zisserman 2015,"
        " arXiv:1409.1556)",
    ),
    Choices("batch_normalization", _BOOLEAN, reason="Ioffe and Szegedy 2015, arXiv:1502.03167"),
    Choices("residual", _BOOLEAN, reason="the article names ResNet (He et al. 2016, arXiv:1512.03385)"),
    Choices(
        "head", HEADS, reason="the article's dense layer, or the mean (Lin et al. 2014, arXiv:1312.4400)"
    ),
    NumberRange(
        "dense_units", 32, 256, log=True, reason="ratios matter; around the article's 80, by factors of 3"
    ),
)

NAMED: Final[Mapping[str, Space]] = {
    space.name: space
    for space in (
        Space("article", _ARTICLE),
        Space("augmented", (*_ARTICLE, *_AUGMENTED)),
        Space("schedules", (*_ARTICLE, *_SCHEDULES)),
        Space("architecture", (*_ARTICLE, *_ARCHITECTURE)),
        Space("everything", (*_ARTICLE, *_SCHEDULES, *_AUGMENTED, *_ARCHITECTURE)),
    )
}
"""The spaces that `--space NAME` knows: the article's recipe is a point of each, no network is too large."""
