"""The hyperparameter search service: space, study, worker, progress and the command line."""
