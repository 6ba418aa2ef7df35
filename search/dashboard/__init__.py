"""The dashboard: optuna-dashboard over a cached database, with what this project adds around it."""
