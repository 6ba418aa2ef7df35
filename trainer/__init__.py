"""The baseline CNN of "[Deep Learning Lab] Episode-2: CIFAR-10": data, model, recipe, training, scores."""
