"""Train one recipe, epoch by epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: Counted from 1.
        loss: Mean cross-entropy over the epoch's training images, dropout on.
        accuracy: Share of training images classified rightly, in [0, 1], dropout on.
        validation_loss: Mean cross-entropy over the validation images.
        validation_accuracy: In [0, 1].
        learning_rate: What the epoch's steps used.
        seconds: Wall time of the epoch, validation included.
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float
