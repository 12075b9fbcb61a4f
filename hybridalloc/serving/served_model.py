"""What ``mlflow models serve`` runs: states in, allocations out. Stored by MLflow as code; see :mod:`.models`."""

from __future__ import annotations

from typing import Any

from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from hybridalloc import Allocator, InvalidStateError
from hybridalloc.problems.contract import example_of


class AllocatorModel(PythonModel):
    """``predict`` takes rows with a ``state`` and gives allocations, one a row."""

    def load_context(self, context: Any) -> None:
        trusted = bool((context.model_config or {}).get("trust_code"))  # as who logged it said
        spare, self.allocator = (Allocator.load(context.artifacts["allocator"], trust_code=trusted) for _ in range(2))
        spare.step(example_of(spare.problem))  # kernels are compiled before the first request; the other stays as saved

    def predict(self, context, model_input, params=None):  # no hints: MLflow would take them for schemas
        answers = []
        for row, state in enumerate(_states(model_input)):
            try:
                answers.append(self.allocator.step(state).to_dict())
            except InvalidStateError as error:
                raise MlflowException(f"state {row}: {error}", INVALID_PARAMETER_VALUE) from None
        return answers


def _states(given: Any) -> list[Any]:
    """The states of a frame with a column ``state``, of a mapping, or of a list of mappings."""
    if hasattr(given, "to_dict"):
        if list(given.columns) == ["state"] and all(isinstance(name, str) for name in given.index) and len(given):
            return [given["state"].to_dict()]  # one state sent bare: MLflow has made its fields the rows
        given = given.to_dict("records")
    rows = given if isinstance(given, list) else [given]
    for row, entry in enumerate(rows):
        if not isinstance(entry, dict) or "state" not in entry:
            raise MlflowException(
                f'row {row} has no field \'state\'; send {{"inputs": {{"state": {{...}}}}}}', INVALID_PARAMETER_VALUE
            )
    return [entry["state"] for entry in rows]


set_model(AllocatorModel())
