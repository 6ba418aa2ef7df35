"""What can go wrong in this package, as a user would say it."""


class TrainerError(Exception):
    """Base of the errors below: what was wrong, the value received, what to do next, in one or two lines."""


class RecipeError(TrainerError, ValueError):
    """A recipe's field lies outside its range."""


class DataError(TrainerError):
    """CIFAR-10 could not be had, or what was found is not CIFAR-10."""


class DeviceError(TrainerError):
    """The device failed, or a program on it: no fault of what was computed."""


class OutOfMemoryError(DeviceError):
    """The device had no memory left; others may have it."""


class ModelError(TrainerError):
    """A file is not a model of this project."""


class PictureError(TrainerError):
    """A file is no picture that can be read; the message begins after the file's name."""
