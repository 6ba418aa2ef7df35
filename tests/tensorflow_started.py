"""TensorFlow, started as the program starts it; to be imported before anything that imports Keras."""

from search.runtime import start_tensorflow

start_tensorflow()
