"""A saved allocator as an MLflow model: registered, given the alias ``champion``, served over HTTP.

The model is *from code*: MLflow stores this package's ``served_model.py`` beside the allocator's ``.npz`` file and
pickles nothing. ``mlflow models serve --env-manager local -m models:/hybridalloc@champion`` then answers

    POST /invocations  {"inputs": [{"state": {...}}, ...]}   one state or several, as ``state.to_dict()`` gives them

with allocations as ``allocation.to_dict()`` gives them. A malformed state is answered with status 400 and the message
of :class:`~hybridalloc.errors.InvalidStateError`, which names field, index, value and what is permitted.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from hybridalloc.allocator import Allocator
from hybridalloc.experiments.tracking import DEFAULT_URI
from hybridalloc.problems.contract import example_of

ALIAS = "champion"
CODE = Path(__file__).with_name("served_model.py")


class Logged(NamedTuple):
    """Where a model lies: MLflow's URI, the registered name and version, the run that holds it."""

    uri: str
    name: str
    version: int
    run_id: str


def log_model(
    allocator: Allocator | str | Path,
    name: str = "hybridalloc",
    tracking_uri: str = DEFAULT_URI,
    experiment: str = "hybridalloc",
    alias: str = ALIAS,
    *,
    trust_code: bool = False,
) -> Logged:
    """Register an allocator as the next version of a model and move the alias to it.

    Args:
        allocator: it, a path or an MLflow URI of a saved one. name: of the registered model.
        tracking_uri: MLflow's store. experiment: of the run that holds the model.
        trust_code: load code that the file names though it is not installed, see :meth:`Allocator.load`. The served
            model never loads a transition, as a step needs none. A problem of one's own class it loads where its user
            logs it as an object or with this flag, and where the class is importable.
    """
    import mlflow

    from hybridalloc.experiments.mirror import artifact_location, quiet_mlflow

    loaded = allocator if isinstance(allocator, Allocator) else Allocator.load(allocator, trust_code=trust_code)
    with quiet_mlflow(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as place:
        warnings.filterwarnings("ignore", message=".*Add type hints to the `predict`")  # the signature is given
        before = os.environ.get("MLFLOW_TRACKING_URI")  # where set_tracking_uri keeps it too
        mlflow.set_tracking_uri(tracking_uri)
        try:
            if mlflow.get_experiment_by_name(experiment) is None:
                mlflow.create_experiment(experiment, artifact_location=artifact_location(tracking_uri))
            held = mlflow.set_experiment(experiment)
            path = loaded.save(Path(place) / "allocator.npz")
            example, own_class = example_state(loaded), "class" in loaded.problem.describe()
            with mlflow.start_run(run_name=f"model {name}", experiment_id=held.experiment_id) as run:
                info = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(CODE),
                    artifacts={"allocator": str(path)},
                    signature=signature_of(example),
                    input_example=[{"state": example}],
                    registered_model_name=name,
                    pip_requirements=["hybridalloc"],
                    model_config={"trust_code": own_class and (trust_code or loaded is allocator)},
                    metadata={"problem": loaded.problem.card.name, "method": loaded.method},
                )
            version = int(info.registered_model_version)
            mlflow.MlflowClient(tracking_uri).set_registered_model_alias(name, alias, str(version))
        finally:
            mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
    return Logged(info.model_uri, name, version, run.info.run_id)


def example_state(allocator: Allocator) -> dict[str, Any]:
    """A state as a client sends it: without what only the simulator knows."""
    state = example_of(allocator.problem).to_dict()
    return {key: value for key, value in state.items() if key not in ("truth", "hidden")}


def signature_of(example: dict[str, Any]) -> Any:
    """One column, ``state``: its fields are checked by the problem's own state, whose messages say what is wrong."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), "state")]),
        outputs=Schema([ColSpec(AnyType(), "allocation")]),
    )  # fmt: skip


def how_to_serve(
    name: str = "hybridalloc", tracking_uri: str = DEFAULT_URI, alias: str = ALIAS, allocator: str = ""
) -> str:
    """The two commands that serve a model and ask it; ``allocator`` is the saved one whose example state is sent."""
    of = f" --allocator {allocator}" if allocator else ""
    return (
        f"MLFLOW_TRACKING_URI={tracking_uri} mlflow models serve --env-manager local -m models:/{name}@{alias} "
        "-p 5001\n"
        f'hybridalloc step --example{of} | sed \'s/.*/{{"inputs": [{{"state": &}}]}}/\' | \\\n'
        "    curl -s -H 'Content-Type: application/json' -d @- http://127.0.0.1:5001/invocations"
    )
