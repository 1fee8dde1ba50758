"""Lines of results made up for tests, as `runs.train_run` and the runner write them."""

SETTING = {"code": "0123456789ab", "jaxlib": "0.10.2", "device": "cpu: test", "threads": 1}
STEPS = (10, 100, 300, 1000)


def line(variant="base", seed=0, *, test=0.9, curve=(0.2, 0.5, 0.9, 0.9), fit=0.95, **edits):
    """One run: final test accuracy, validation accuracies at STEPS, accuracy on training images,
    and any field edited. By default a net that has learned all that it will."""
    return {
        "experiment": "bn_ablation",
        "size": "small",
        "variant": variant,
        "id": f"id of {variant}",
        "seed": seed,
        "recipe": {"steps": STEPS[-1], "batch": 32, "data": "mnist5k"},
        "status": "ok",
        "diverged_at": None,
        "end_lr": 0.003,
        "final": {"val_accuracy": curve[-1], "test_accuracy": test},
        "history": [
            {"step": step, "lr": 0.03, "val_accuracy": value, "train_accuracy": fit}
            for step, value in zip(STEPS, curve, strict=False)
        ],
        "data": {
            "name": "mnist5k",
            "note": "MNIST",
            "digest": "d1",
            "train": 3500,
            "validation": 500,
            "test": 1000,
            "classes": 10,
            "majority": 0.1,
        },
        "setting": SETTING,
        "versions": {"jax": "0.10.2"},
        "commit": "abc",
        "seconds": {"all": 2.0, "compile": 1.0, "evaluation": 0.1, "total": 1.9},
    } | edits


def diverged(variant="base", seed=0, step=40, **edits):
    """A run whose loss was not finite at `step`: it stopped at the next evaluation."""
    curve = [0.2, *(0.1 for at in STEPS[1:] if at < step), 0.0]
    found = line(variant, seed, test=0.1, curve=curve, fit=0.1, **edits)
    return found | {"status": f"diverged at step {step}", "diverged_at": step}
