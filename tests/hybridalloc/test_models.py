"""The allocator as an MLflow model: registered from code, loaded by its alias, served over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time

import pytest
import uvicorn

from hybridalloc import Allocator, make_problem
from hybridalloc.experiments.tracking import RunLog, write_comparison
from hybridalloc.serving.lineage import lineage_of
from hybridalloc.serving.models import example_state, how_to_serve, log_model


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A registered model behind MLflow's own scoring server, in this process; the store's URI and the port."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    place = tmp_path_factory.mktemp("models")
    uri = f"sqlite:///{place}/mlflow.db"
    before = os.environ.get("MLFLOW_TRACKING_URI")
    problem = make_problem("mec", agents=6, servers=3)
    saved = Allocator(problem, recommender="imappo", trust=7.0).save(place / "allocator.npz")
    first = log_model(saved, "farm", uri, alias="champion")
    assert (first.name, first.version) == ("farm", 1)
    assert os.environ.get("MLFLOW_TRACKING_URI") == before  # the user's own setting is left as it was
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model("models:/farm@champion")
    finally:
        mlflow.set_tracking_uri(before)
    app = scoring_server.init(model)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield uri, server.servers[0].sockets[0].getsockname()[1], model
    server.should_exit = True
    thread.join(timeout=10)


def post(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/invocations", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_states_are_answered_with_the_allocators_own_allocations(served):
    _, port, _ = served
    problem = make_problem("mec", agents=6, servers=3)
    mine = Allocator(problem, recommender="imappo", trust=7.0)
    states = []
    for seed in range(5):
        state = problem.reset(seed).to_dict()
        state.pop("truth")
        states.append(state)
    status, answer = post(port, {"inputs": [{"state": state} for state in states]})
    assert status == 200 and len(answer["predictions"]) == 5
    for state, given in zip(states, answer["predictions"], strict=True):
        wanted = mine.step(state).to_dict()
        assert given["certificate"]["feasible"] and given["option"] == wanted["option"]
        assert given["shares"] == wanted["shares"] and given["certificate"]["regret"] == wanted["certificate"]["regret"]
    for body in ({"inputs": {"state": states[0]}}, {"dataframe_records": [{"state": states[0]}]}):
        assert post(port, body)[1]["predictions"][0]["option"] == mine.step(states[0]).option.tolist()


def test_a_malformed_state_is_answered_with_4xx_and_the_field(served):
    _, port, model = served
    good = example_state(model.unwrap_python_model().allocator)
    for change, message in (
        ({"deadline_s": [-1.0] * 6}, "state 0: deadline_s[0] = -1.0; it must be finite and > 0 s"),
        ({"server_hz": [1e9]}, "server_hz has shape (1,)"),
        ({"task_bits": ["many"] * 6}, "task_bits[0] = 'many'; it must be a number"),
        ({"task_bit": [1.0] * 6}, "unknown field 'task_bit'; did you mean 'task_bits'"),
    ):
        status, answer = post(port, {"inputs": [{"state": good | change}]})
        assert status == 400 and message in answer["message"], answer["message"][-300:]
    short = {name: value for name, value in good.items() if name != "server_hz"}
    status, answer = post(port, {"inputs": [{"state": short}]})
    assert status == 400 and "field 'server_hz' is missing" in answer["message"]
    status, answer = post(port, {"inputs": [{"stat": good}]})
    assert status == 400 and "state" in answer["message"]
    assert post(port, {"inputs": [{"state": 7}]})[0] == 400


def test_the_model_has_a_signature_an_example_and_no_pickle(served):
    uri, _, model = served
    import mlflow

    assert model.metadata.signature.inputs.input_names() == ["state"]
    client = mlflow.MlflowClient(uri)
    version = client.get_model_version_by_alias("farm", "champion")
    source = client.get_run(version.run_id)
    assert source.info.run_name == "model farm"
    assert model.metadata.saved_input_example_info is not None
    assert "python_model" not in model.metadata.flavors["python_function"]  # from code
    assert model.metadata.flavors["python_function"]["model_code_path"].endswith("served_model.py")
    assert "models:/farm@champion" in how_to_serve("farm", uri, alias="champion")
    assert "models:/farm/3 " in how_to_serve("farm", uri, 3)


def test_the_model_says_what_it_takes_what_it_gives_and_where_it_comes_from(served):
    uri, _, model = served
    import mlflow

    given = {column.name: column.type for column in model.metadata.signature.outputs}
    assert {"option", "shares", "prices", "certificate"} <= given.keys() and "Any" not in str(given["option"])
    assert model.metadata.metadata["state"]["deadline_s"] == "(N) float, s"
    client = mlflow.MlflowClient(uri)
    version = client.get_model_version_by_alias("farm", "champion")
    assert version.tags["hybridalloc.source"].endswith("allocator.npz")


def test_lineage_is_that_of_the_run_whose_folder_holds_the_file(tmp_path):
    folder = tmp_path / "mec-1"
    write_comparison(
        folder, problem="mec", scenario={}, methods=["game-tuned"], seeds=[0], budget={}, data_digest="ab", git="c0ffee"
    )
    with RunLog(folder, "game-tuned", 0) as log:
        (folder / log.name).mkdir()
        (folder / log.name / "allocator.npz").write_bytes(b"x")
        (folder / log.name / "evaluation.json").write_text(json.dumps({"metrics": {"welfare": [1.0, 2.0, None]}}))
    found = lineage_of(folder / log.name / "allocator.npz")
    assert found.metrics == {"welfare": 1.5}
    assert found.tags["hybridalloc.comparison"] == "mec-1" and found.tags["git_commit"] == "c0ffee"
    assert found.tags["method"] == "game-tuned" and found.tags["data_digest"] == "ab"
    train = tmp_path / "a.runs" / "mec-2"
    write_comparison(
        train, problem="mec", scenario={}, methods=["rl-dqn"], seeds=[0], budget={}, data_digest="", git="d"
    )
    with RunLog(train, "rl-dqn", 0) as log:
        log.end({"trust": 3.0})
    for path in (train / "allocator.npz", tmp_path / "a.npz"):
        path.write_bytes(b"y")
    assert lineage_of(tmp_path / "a.npz").metrics == {"trust": 3.0}
    (tmp_path / "a.npz").write_bytes(b"another")
    assert lineage_of(tmp_path / "a.npz").tags == {"hybridalloc.source": str(tmp_path / "a.npz")}
    assert lineage_of(None) == ({}, {})
