"""Who sees what, proved by perturbation and gradient; message passing against networkx, an oracle toy, other sizes."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch

from rl.graph import allowed_of, graph_of
from rl.information import NETWORKS, PARADIGMS
from rl.learner import Executed
from rl.mappo import Mappo, MappoConfig
from rl.networks import Sizes, own_features
from rl.policy import ArrayPolicy
from rl.proposal import Observation

SIZES = Sizes(5, 3, 4)


def situation(seed, networks=3, agents=6, options=4, density=0.6):
    rng = np.random.default_rng(seed)
    f = lambda *shape: rng.normal(0, 1, shape).astype(np.float32)
    allowed = rng.random((networks, agents, options)) < density
    allowed[..., 0] = True
    live = rng.random((networks, agents)) < 0.8
    live[:, 0] = True
    return Observation(
        f(networks, agents, SIZES.agent), f(networks, options - 1, SIZES.resource),
        f(networks, agents, options, SIZES.pair), live, allowed, np.arange(-1, options - 1),
    )  # fmt: skip


def trained(name, seed=0):
    """A network whose every layer says something."""
    torch.manual_seed(seed)
    actor = NETWORKS[name](SIZES, 16)
    with torch.no_grad():
        for p in actor.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return actor


def scores(actor, o, agent=None, pair=None):
    """(M, O) of the live agents, their rows and places; ``agent`` and ``pair`` are tensors to use instead."""
    row, at = np.nonzero(o.live)
    t = torch.from_numpy
    agent = t(o.agent) if agent is None else agent
    pair = t(o.pair) if pair is None else pair
    got = actor(agent[row, at], pair[row, at], t(o.resource), t(row), t(o.resource_of), t(o.allowed[row, at]))
    return got, row, at


def others_changed(o, i, seed=9):
    """The same situation with every other agent's features replaced."""
    rng = np.random.default_rng(seed)
    agent, pair = o.agent.copy(), o.pair.copy()
    other = np.arange(agent.shape[1]) != i
    agent[:, other] = rng.normal(0, 3, agent[:, other].shape)
    pair[:, other] = rng.normal(0, 3, pair[:, other].shape)
    return o._replace(agent=agent, pair=pair)


# --- what an actor and a critic can see


@pytest.mark.parametrize("name", NETWORKS)
def test_a_decentralised_actor_cannot_see_another_agent(name):
    """Bit for bit the same scores whatever the others' features are, and no gradient with respect to them."""
    actor, o = trained(name), situation(1, density=0.9)
    changed = others_changed(o, 0)
    for propose in (lambda x: ArrayPolicy(actor.export()).propose(x).log_prior[:, 0],
                    lambda x: scores(actor, x)[0].detach().numpy()[np.nonzero(x.live)[1] == 0]):  # fmt: skip
        same = np.array_equal(propose(o), propose(changed))
        assert same == (actor.information == "own")
    agent, pair = (torch.from_numpy(x).requires_grad_() for x in (o.agent, o.pair))
    got, _, at = scores(actor, o, agent, pair)
    got[torch.from_numpy(at == 0)].square().sum().backward()
    assert agent.grad[:, 0].abs().sum() > 0 and pair.grad[:, 0].abs().sum() > 0
    for gradient in (agent.grad, pair.grad):
        assert (gradient[:, 1:] == 0).all() == (actor.information == "own")


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_paradigms_are_settings_of_one_learner(paradigm):
    learner = Mappo(SIZES, MappoConfig(**PARADIGMS[paradigm]), seed=0)
    assert type(learner) is Mappo
    assert (learner.actor.information == "own") == (paradigm in ("dtde", "ctde"))
    o = situation(2)
    changed = others_changed(o, 0)
    before, after = (learner.values(own_features(x), x.resource)[:, 0] for x in (o, changed))
    assert np.array_equal(before, after) == (paradigm == "dtde")
    own = torch.from_numpy(own_features(o)).requires_grad_()
    learner.critic(own, torch.from_numpy(o.resource))[:, 0].sum().backward()
    assert (own.grad[:, 1:] == 0).all() == (paradigm == "dtde")


def test_an_unknown_network_names_those_there_are():
    with pytest.raises(ValueError, match="network = 'grpah'; it must be one of pair, pooled, graph"):
        MappoConfig(network="grpah")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_compiled_pass_is_the_plain_one_with_its_gradients(name):
    """Also over more agents than one block holds, and with weights that silence some units."""
    for seed, shape in enumerate(((1, 1, 2), (5, 30, 4))):
        actor, o = trained(name, seed), situation(seed, *shape)
        row, at = np.nonzero(o.live)
        t = torch.from_numpy
        given = t(o.agent[row, at]), t(o.pair[row, at]), t(o.resource), t(row), t(o.resource_of), t(o.allowed[row, at])
        slope = torch.randn(len(row), shape[2])
        results = []
        for forward in (actor, actor.fused):
            actor.zero_grad()
            got = forward(*given)
            (got * slope).sum().backward()
            results.append([got.detach(), *[p.grad.clone() for p in actor.parameters()]])
        for one, other in zip(*results, strict=True):
            assert (one - other).abs().max() <= 2e-5 * max(float(one.abs().max()), 1.0)


# --- the networks that hear others


@pytest.mark.parametrize("name", NETWORKS)
def test_numpy_equals_torch_and_untrained_is_flat(name):
    actor = trained(name)
    for seed, shape in enumerate(((1, 1, 2), (3, 6, 4), (2, 30, 9))):
        o = situation(seed, *shape)
        got, row, at = scores(actor, o)
        out = ArrayPolicy(actor.export()).propose(o).log_prior
        assert np.abs(out[row, at] - got.detach().numpy()).max() < 1e-5 * max(np.abs(out).max(), 1)
        assert not out[~o.live].any()
        fresh = NETWORKS[name](SIZES, 16)
        assert not ArrayPolicy(fresh.export()).propose(o).log_prior.any()
    idle = situation(0)._replace(live=np.zeros((3, 6), bool))
    assert not ArrayPolicy(actor.export()).propose(idle).log_prior.any()


@pytest.mark.parametrize("name", NETWORKS)
def test_reordering_agents_and_resources_reorders_the_scores(name):
    policy, o = ArrayPolicy(trained(name).export()), situation(3)
    rng = np.random.default_rng(0)
    i, r = rng.permutation(6), rng.permutation(3)
    k = np.concatenate([[0], 1 + r])
    moved = Observation(
        o.agent[:, i], o.resource[:, r], o.pair[:, i][:, :, k], o.live[:, i], o.allowed[:, i][:, :, k], o.resource_of
    )
    assert np.allclose(
        policy.propose(o).log_prior[:, i][:, :, k], policy.propose(moved).log_prior, rtol=1e-4, atol=1e-4
    )


def test_options_of_one_resource_meet_at_it():
    """Two options stand for resource 0: an agent on one hears an agent on the other."""
    policy, o = ArrayPolicy(trained("graph").export()), situation(4, 1, 2, 3)
    o = o._replace(live=np.ones((1, 2), bool), allowed=np.array([[[1, 1, 0], [1, 0, 1]]], bool))
    apart = o._replace(resource_of=np.array([-1, 0, 1]))
    together = o._replace(resource_of=np.array([-1, 0, 0]))
    for seen, hears in ((apart, False), (together, True)):
        same = np.array_equal(
            policy.propose(seen).log_prior[:, 0], policy.propose(others_changed(seen, 0)).log_prior[:, 0]
        )
        assert same != hears


def test_messages_pass_in_components_of_the_networkx_graph_alone():
    graph = nx.Graph()
    graph.add_nodes_from("abcd", bipartite=0)
    graph.add_nodes_from("xyz", bipartite=1)
    graph.add_edges_from([("a", "x"), ("b", "x"), ("b", "y"), ("c", "z"), ("d", "z")])
    allowed, resource_of = allowed_of(graph, "abcd", "xyz")
    assert allowed.tolist() == [[True, True, False, False], [True, True, True, False],
                                [True, False, False, True], [True, False, False, True]]  # fmt: skip
    o = situation(5, 1, 4, 4)._replace(live=np.ones((1, 4), bool), allowed=allowed[None], resource_of=resource_of)
    again = graph_of(o)
    wanted = nx.relabel_nodes(graph, {n: ("agent", "abcd".index(n)) for n in "abcd"}
                              | {n: ("resource", "xyz".index(n)) for n in "xyz"})  # fmt: skip
    assert set(again) == set(wanted) and set(map(frozenset, again.edges)) == set(map(frozenset, wanted.edges))
    actor = trained("graph")
    agent = torch.from_numpy(o.agent).requires_grad_()
    for i in range(4):
        agent.grad = None
        got, _, at = scores(actor, o, agent)
        got[torch.from_numpy(at == i)].square().sum().backward()
        heard = {j for j in range(4) if agent.grad[0, j].abs().sum() > 0}
        assert heard == {j for j in range(4) if nx.has_path(again, ("agent", i), ("agent", j))}


def test_a_topology_that_is_not_one_is_refused():
    graph = nx.Graph([("a", "x"), ("a", "b")])
    with pytest.raises(ValueError, match="'q' is not a node of the graph; it has 3"):
        allowed_of(graph, ["a", "q"], ["x"])
    with pytest.raises(ValueError, match="an edge joins 'a' and 'b'; edges run between an agent and a resource"):
        allowed_of(graph, ["a", "b"], ["x"])


# --- an oracle: the least crowded resource


def crowd(rng, networks, agents, resources):
    """Who reaches what is all there is to see, and each agent sees only its own reach: features are constant."""
    reach = rng.random((networks, agents, resources)) < rng.uniform(0.2, 0.9, (networks, 1, resources))
    allowed = np.concatenate([np.ones((networks, agents, 1), bool), reach], axis=2)
    pair = np.zeros((networks, agents, 1 + resources, 2), np.float32)
    pair[:, :, 0, 0] = pair[:, :, 1:, 1] = 1.0
    ones = lambda *shape: np.ones((*shape, 1), np.float32)
    return Observation(
        ones(networks, agents), ones(networks, resources), pair, np.ones((networks, agents), bool), allowed,
        np.arange(-1, resources),
    )  # fmt: skip


def paid(o, option):
    """1 on the reachable resource that fewest agents reach, less .2 for each agent more; -1 for opting out."""
    count = np.concatenate([np.full((len(option), 1), np.inf), o.allowed[:, :, 1:].sum(axis=1)], axis=1)
    cost = np.where(o.allowed, count[:, None], np.inf)
    least = cost.min(axis=2)
    chosen = np.take_along_axis(cost, option[..., None], 2)[..., 0]
    with np.errstate(invalid="ignore"):
        return np.where(option == 0, -1.0, 1.0 - 0.2 * np.minimum(chosen - least, 10)), least


def picks_the_least(policy, networks, agents, resources, seed=123):
    """Share of agents with a real choice that take a least-reached resource."""
    o = crowd(np.random.default_rng(seed), networks, agents, resources)
    option = np.where(o.allowed, policy.propose(o).log_prior, -np.inf).argmax(axis=2)
    reward, _ = paid(o, option)
    count = np.where(o.allowed[:, :, 1:], o.allowed[:, :, 1:].sum(axis=1)[:, None], -1)
    choice = (count.max(axis=2) > np.where(count < 0, 10**6, count).min(axis=2)) & (o.allowed.sum(axis=2) > 2)
    return float((reward[choice] == 1.0).mean())


def learned(network, updates):
    config = MappoConfig(
        horizon=8, gamma=0.0, gae=0.0, network=network, critic="own", credit="own", hidden=16, rate=1e-2, entropy=1e-3
    )
    rng = np.random.default_rng(0)
    o = crowd(rng, 16, 6, 2)
    learner = Mappo(Sizes.of(o), config, seed=0)
    for update in range(updates):
        while not learner.ready():
            logits = np.where(o.allowed, learner.propose(o).log_prior, -np.inf)
            log_prior = np.maximum(logits - logits.max(axis=2, keepdims=True), -10.0)
            noise = rng.gumbel(size=log_prior.shape)
            option = np.where(o.allowed, log_prior + noise, -np.inf).argmax(axis=2)
            reward, _ = paid(o, option)
            zero = np.zeros(log_prior.shape)
            learner.record(Executed(o, option, log_prior, zero, reward, np.zeros((16, 6, 1)), np.zeros(16, bool), None))
            o = crowd(rng, 16, 6, 2)
        learner.update(o, update / updates)
    return learner.policy


def test_the_graph_finds_what_needs_a_count_of_the_others_and_the_pair_scorer_cannot():
    """And the weights hold at sizes that training never saw."""
    graph, pair = learned("graph", 25), learned("pair", 8)
    assert picks_the_least(graph, 100, 6, 2) > 0.97
    assert 0.35 < picks_the_least(pair, 100, 6, 2) < 0.65
    for agents, resources, most in ((10, 3, 0.65), (100, 18, 0.1)):
        assert picks_the_least(graph, 20, agents, resources) > 0.8
        assert picks_the_least(pair, 20, agents, resources) < most
