"""A saved allocator as an MLflow model: registered, given an alias if asked to, served over HTTP.

The model is *from code*: MLflow stores this package's ``served_model.py`` beside the allocator's ``.npz`` file and
pickles nothing. ``mlflow models serve --env-manager local -m models:/hybridalloc/1`` then answers

    POST /invocations  {"inputs": [{"state": {...}}, ...]}   one state or several, as ``state.to_dict()`` gives them

with allocations as ``allocation.to_dict()`` gives them. A malformed state is answered with status 400 and the message
of :class:`~hybridalloc.errors.InvalidStateError`, which names field, index, value and what is permitted. So the
signature types what goes out, and of what comes in the column alone: MLflow's own check of a typed object refuses
``[1, 2]`` where numbers are wanted, and says "array, received list". The fields' axes and units are in the model's
metadata, "state".
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from games.extras import required
from hybridalloc.allocator import Allocator
from hybridalloc.experiments.mlflow_store import DEFAULT_URI, check_store
from hybridalloc.problems.contract import example_of
from hybridalloc.serving.lineage import lineage_of
from hybridalloc.text import quoted

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
    alias: str = "",
    *,
    trust_code: bool = False,
) -> Logged:
    """Register an allocator as the next version of a model, with where it comes from and what it scored there.

    Args:
        allocator: it, a path or an MLflow URI of a saved one. name: of the registered model.
        tracking_uri: MLflow's store. experiment: of the run that holds the model.
        alias: to move to this version, such as "champion"; "" moves none.
        trust_code: load code that the file names though it is not installed, see :meth:`Allocator.load`. The served
            model never loads a transition, as a step needs none. A problem of one's own class it loads where its user
            logs it as an object or with this flag, and where the class is importable.

    Raises:
        ValueError, TrackingError: a name, alias or store that MLflow cannot have, before anything is written.
    """
    mlflow = required("mlflow")
    check_store(tracking_uri)
    if not name or set(name) & set("/:"):
        raise ValueError(f"name = {quoted(name)}; a model's name is not empty and has neither / nor :")
    if alias and (not re.fullmatch(r"[\w-]+", alias) or re.fullmatch(r"v\d+|latest", alias)):
        raise ValueError(f"alias = {quoted(alias)}; letters, digits, - and _ are required, and not v1 or latest")
    from hybridalloc.experiments.mlflow_store import KIND_TAG, artifact_location, quiet_mlflow

    loaded = allocator if isinstance(allocator, Allocator) else Allocator.load(allocator, trust_code=trust_code)
    with quiet_mlflow(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as place:
        warnings.filterwarnings("ignore", message=".*Add type hints to the `predict`")  # the signature is given
        before = os.environ.get("MLFLOW_TRACKING_URI")  # where set_tracking_uri keeps it too
        mlflow.set_tracking_uri(tracking_uri)
        try:
            if mlflow.get_experiment_by_name(experiment) is None:
                place_ = artifact_location(tracking_uri)
                mlflow.create_experiment(experiment, artifact_location=place_, tags=KIND_TAG)
            held = mlflow.set_experiment(experiment)
            path = loaded.save(Path(place) / "allocator.npz")
            client = mlflow.MlflowClient(tracking_uri)
            lineage = lineage_of(None if loaded is allocator else str(allocator), client)
            example, own_class = example_state(loaded), "class" in loaded.problem.describe()
            with mlflow.start_run(run_name=f"model {name}", experiment_id=held.experiment_id) as run:
                info = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(CODE),
                    artifacts={"allocator": str(path)},
                    signature=signature_of(loaded, example),
                    input_example=[{"state": example}],
                    registered_model_name=name,
                    pip_requirements=["hybridalloc"],
                    model_config={"trust_code": own_class and (trust_code or loaded is allocator)},
                    metadata={
                        "problem": loaded.problem.card.name, "method": loaded.method,
                        "state": fields_of(loaded.problem.state_type),
                    },
                )  # fmt: skip
                mlflow.set_tags(lineage.tags | {"problem": loaded.problem.card.name})
                if lineage.metrics:
                    mlflow.log_metrics(lineage.metrics, model_id=info.model_id)
            version = int(info.registered_model_version)
            for key, value in lineage.tags.items():
                client.set_model_version_tag(name, str(version), key, value)
            if alias:
                client.set_registered_model_alias(name, alias, str(version))
        finally:
            mlflow.set_tracking_uri(before)
    return Logged(info.model_uri, name, version, run.info.run_id)


def example_state(allocator: Allocator) -> dict[str, Any]:
    """A state as a client sends it: without what only the simulator knows."""
    state = example_of(allocator.problem).to_dict()
    return {key: value for key, value in state.items() if key not in ("truth", "hidden")}


def signature_of(allocator: Allocator, example: dict[str, Any]) -> Any:
    """A column ``state``, whose fields the problem's own state checks, and an allocation, typed from that of the
    example."""
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    answer = allocator.step(example).to_dict()
    outputs = infer_signature(model_output=[answer]).outputs
    return ModelSignature(inputs=Schema([ColSpec(AnyType(), "state")]), outputs=outputs)


def fields_of(state_type: type[Any]) -> dict[str, str]:
    """The arrays of a problem's state with their axes, types and units, such as {"deadline_s": "(N) float, s"}."""
    told = {}
    for field in fields(state_type):
        spec = field.metadata.get("spec")
        if spec is not None:
            unit = f", {spec.unit}" if spec.unit else ""
            told[field.name] = f"({', '.join(spec.axes)}) {spec.dtype.__name__.rstrip('_')}{unit}"
    return told


def how_to_serve(
    name: str = "hybridalloc", tracking_uri: str = DEFAULT_URI, version: int = 1, alias: str = "", allocator: str = ""
) -> str:
    """The two commands that serve a model's version, or its alias, and ask it.

    ``allocator`` is the saved one whose example state is sent.
    """
    which = f"@{alias}" if alias else f"/{version}"
    of = f" --allocator {allocator}" if allocator else ""
    return (
        f"MLFLOW_TRACKING_URI={tracking_uri} mlflow models serve --env-manager local -m models:/{name}{which} "
        "-p 5001\n"
        f'hybridalloc step --example{of} | sed \'s/.*/{{"inputs": [{{"state": &}}]}}/\' | \\\n'
        "    curl -s -H 'Content-Type: application/json' -d @- http://127.0.0.1:5001/invocations"
    )
