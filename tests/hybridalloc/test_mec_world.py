"""How mec's world moves: the random numbers against published values and closed forms, and the law they make."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hybridalloc.problems import make_problem
from hybridalloc.problems.mec import law as mec_world


def uniforms(seed, size):
    out = np.empty(size)
    mec_world.draw(mec_world.streams([seed]), 0, out)
    return out - 1.0


def normals(seed, size):
    stream = mec_world.streams([seed])
    u, v = np.empty(size), np.empty(size)
    mec_world.draw(stream, 0, u)
    mec_world.draw(stream, 0, v)
    mec_world.normal_pairs(u, v)
    return u, v


# --- random numbers


def test_draws_are_splitmix64s_published_ones():
    """The first five outputs from seed 1234567 as in the generator's reference (its upper 52 bits are used)."""
    published = (
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    )  # fmt: skip
    stream = np.array([[1234567, 0]], np.uint64)
    for size in (2, 3):  # drawn in two goes: the counter goes on
        begun, out = int(stream[0, 1]), np.empty(size)
        mec_world.draw(stream, 0, out)
        for got, whole in zip(out, published[begun:], strict=False):
            assert got - 1.0 == (whole >> 12) / 2**52
    assert stream.tolist() == [[1234567, 5]]


def test_uniforms_are_uniform_and_uncorrelated_along_and_between_streams():
    n = 2**18
    x = uniforms(0, n)
    assert x.min() >= 0 and x.max() < 1
    assert stats.chisquare(np.bincount((256 * x).astype(int), minlength=256)).pvalue > 1e-3
    assert stats.chisquare(np.bincount((256 * (4096 * x % 1)).astype(int), minlength=256)).pvalue > 1e-3  # lower bits
    for lag in (1, 2, 50, 450):
        assert abs(np.corrcoef(x[lag:], x[:-lag])[0, 1]) < 4.5 / n**0.5
    for other in (1, 2, 2**31):
        assert abs(np.corrcoef(x, uniforms(other, n))[0, 1]) < 4.5 / n**0.5
    cells = (16 * x[0::2]).astype(int) * 16 + (16 * x[1::2]).astype(int)
    assert stats.chisquare(np.bincount(cells, minlength=256)).pvalue > 1e-3  # pairs


def test_logarithm_against_numpy():
    rng = np.random.default_rng(0)
    x = np.concatenate([1 - rng.random(2000), 10 ** rng.uniform(-300, 300, 2000), [2.0**-52, 1.0, 2**0.5, 1 + 2**-52]])
    got = np.array([mec_world.log(v) for v in x])
    assert (np.abs(got - np.log(x)) <= 4e-16 * (1 + np.abs(np.log(x)))).all()
    assert mec_world.log(1.0) == 0.0


def test_normals_are_box_and_mullers():
    size = 5000
    stream = mec_world.streams([3])
    a, b = np.empty(size), np.empty(size)
    mec_world.draw(stream, 0, a)
    mec_world.draw(stream, 0, b)
    u, v = normals(3, size)
    radius, angle = np.sqrt(-2 * np.log(2 - a)), 2 * np.pi * (b - 1.5)
    assert np.abs(u - radius * np.cos(angle)).max() < 1e-12
    assert np.abs(v - radius * np.sin(angle)).max() < 1e-12
    edge, turn = np.array([1.0, 2 - 2.0**-52]), np.array([1.0, 2 - 2.0**-52])
    mec_world.normal_pairs(edge, turn)
    assert np.isfinite([edge, turn]).all() and np.abs(edge).max() < 8.5


def test_normals_have_the_normal_law_to_its_tails():
    x, y = normals(1, 2**19)
    both = np.concatenate([x, y])
    n = len(both)
    assert stats.kstest(both, "norm").pvalue > 1e-3
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((both**power).mean() - moment) < 4.5 * (variance / n) ** 0.5
    for far in (3.0, 4.0, 4.5):
        wanted = 2 * stats.norm.sf(far) * n
        assert abs((np.abs(both) > far).sum() - wanted) < 4.5 * wanted**0.5
    for one, other in ((x, y), (x**2, y**2), (x[1:], x[:-1]), (x, normals(2, 2**19)[0])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / len(one) ** 0.5


# --- streams of a batch


def everything(batch):
    return [np.array(a) for a in (*batch.world, batch.stream, batch.epoch)]


def test_the_random_state_is_saved_and_restored_exactly():
    problem = make_problem("mec", agents=10, servers=3)
    batch = problem.worlds([1, 2, 3])
    for _ in range(5):
        batch.drift()
    held = everything(batch)

    def go_on():
        for slot in range(6):
            batch.drift()
            batch.restart(np.array([slot == 2, False, slot == 4]))
        return everything(batch)

    first = go_on()
    for field, value in zip((*batch.world, batch.stream, batch.epoch), held, strict=True):
        field[...] = value
    for one, other in zip(first, go_on(), strict=True):
        assert np.array_equal(one, other)


def test_a_slot_takes_the_same_draws_whatever_is_switched_on():
    """So an ablation sees the same world but for what it switches off."""
    worlds = {}
    for name in ("none", "blockage", "bursts", "batteries", "varied_fading", "staleness"):
        batch = make_problem("mec", agents=10, servers=3, **({} if name == "none" else {name: False})).worlds([4])
        for _ in range(7):
            batch.drift()
        worlds[name] = batch
    for name, batch in worlds.items():
        assert np.array_equal(batch.stream, worlds["none"].stream), name
        assert np.array_equal(batch.world.task_bits, worlds["none"].world.task_bits), name
        if name not in ("varied_fading", "staleness"):  # with fresh reports the fading begins a slot later
            assert np.array_equal(batch.world.fading, worlds["none"].world.fading), name


def test_networks_are_independent_and_restarts_are_new():
    problem = make_problem("mec", agents=40, servers=9)
    batch = problem.worlds(range(30))
    w = batch.world
    series = []
    for slot in range(40):
        if slot == 20:
            before = w.mean_gain.copy()
            batch.restart(np.ones(30, bool))
            assert abs(np.corrcoef(np.log(before).ravel(), np.log(w.mean_gain).ravel())[0, 1]) < 0.05
        batch.drift()
        series.append(w.fading.reshape(30, -1).copy())
    x = np.array(series)  # (T, E, M)
    several = np.corrcoef(x[::8].transpose(1, 0, 2).reshape(30, -1))[~np.eye(30, dtype=bool)]
    assert np.abs(several).max() < 6.5 / (5 * x.shape[2]) ** 0.5  # 5, and some for the fading's own correlation
    assert len({tuple(row) for row in batch.stream.tolist()}) == 30


# --- the law


def test_a_network_begins_by_its_law():
    problem = make_problem("mec", agents=60, servers=4)
    w = problem.worlds(range(150)).world
    km = np.sqrt(((w.position[:, :, None] - w.site[:, None]) ** 2).sum(-1) + 400) / 1e3
    shadow = -10 * np.log10(w.mean_gain) - 128.1 - 37.6 * np.log10(km)
    assert stats.kstest(shadow.ravel() / 8.0, "norm").pvalue > 1e-3
    side = 1000 * (4 / 9) ** 0.5
    uniform = {
        "position": (w.position, 0, side), "battery": (w.battery_j, 0.3, 1.0),
        "correlation": (w.correlation, 0.4, 0.95), "device": (w.device_hz, 0.6e9, 1.2e9),
        "server": (w.server_hz, 6e9, 14e9), "bits": (w.task_bits, 5e4, 15e4),
        "cycles": (w.task_cycles / w.task_bits, 200, 400), "deadline": (w.deadline_s, 0.02, 0.05),
    }  # fmt: skip
    for name, (value, low, high) in uniform.items():
        assert stats.kstest((value.ravel() - low) / (high - low), "uniform").pvalue > 1e-3, name
    assert stats.chisquare(np.bincount((2 * w.sla).astype(int).ravel(), minlength=3)).pvalue > 1e-3
    assert abs(w.bursting.mean() - 0.5) < 4.5 * 0.5 / w.bursting.size**0.5
    assert abs((w.attenuation < 1).mean() - 0.25) < 4.5 * 0.43 / w.attenuation.size**0.5
    assert 0 <= w.slot.min() < 20 and 140 < w.slot.max() < 160
    power = (w.fading**2).sum(-1).ravel()
    assert stats.kstest(power, "expon").pvalue > 1e-3  # Rayleigh: the power is exponential of mean one
    now, told = w.true_gain, w.reported_gain
    rho = w.correlation.mean()
    seen = np.corrcoef((now / (w.mean_gain * w.attenuation)).ravel(), (told / (w.mean_gain * w.attenuation)).ravel())
    assert seen[0, 1] == pytest.approx((w.correlation**2).mean(), abs=0.03) and seen[0, 1] < rho


def test_fading_is_a_gauss_markov_chain():
    problem = make_problem("mec", agents=20, servers=3)
    batch = problem.worlds(range(60))
    w = batch.world
    rho = w.correlation[..., None, None]
    for _ in range(15):
        before = w.fading.copy()
        batch.drift()
        fresh = (w.fading - rho * before) / np.sqrt((1 - rho**2) / 2)
        assert stats.kstest(fresh.ravel(), "norm").pvalue > 1e-4
        assert abs(np.corrcoef(fresh.ravel(), before.ravel())[0, 1]) < 4.5 / fresh.size**0.5
        assert abs(np.corrcoef(fresh[..., 0].ravel(), fresh[..., 1].ravel())[0, 1]) < 4.5 / (fresh.size / 2) ** 0.5
    slow = w.mean_gain * w.attenuation
    assert np.allclose(w.true_gain, slow * (w.fading**2).sum(-1), rtol=1e-12)


def test_blockages_and_bursts_are_chains_without_memory():
    """Stays have geometric lengths: the chance to change does not depend on how long it has lasted."""
    problem = make_problem("mec", agents=40, servers=4)
    batch = problem.worlds(range(40))
    stay = {"blocked": [], "bursting": []}
    length = {name: None for name in stay}
    for _ in range(60):
        old = {"blocked": batch.world.attenuation < 1, "bursting": batch.world.bursting.copy()}
        batch.drift()
        new = {"blocked": batch.world.attenuation < 1, "bursting": batch.world.bursting}
        for name in stay:
            changed = old[name] != new[name]
            lasted = length[name] if length[name] is not None else np.zeros(changed.shape, int)
            stay[name].append(np.stack([old[name].ravel(), lasted.ravel(), changed.ravel()]))
            length[name] = np.where(changed, 0, lasted + 1)
    for name, chance in (("blocked", {False: 0.04, True: 0.12}), ("bursting", {False: 0.1, True: 0.1})):
        state, lasted, changed = np.concatenate(stay[name], axis=1)
        for at, wanted in chance.items():
            for low, high in ((0, 1), (1, 3), (3, 8), (8, 60)):
                some = changed[(state == at) & (lasted >= low) & (lasted < high)]
                assert len(some) > 1000
                assert abs(some.mean() - wanted) < 4.5 * (wanted * (1 - wanted) / len(some)) ** 0.5


def test_the_load_follows_burst_hour_and_hot_spot():
    problem = make_problem("mec", agents=60, servers=4)
    batch = problem.worlds(range(80))
    w = batch.world
    drawn, wanted = [], []
    for _ in range(40):
        batch.drift()
        load = 0.6 * (1 + 0.35 * np.sin(2 * np.pi * w.slot / 160))[:, None]
        turn = 2 * np.pi * ((w.slot // 10) % 4) / 4
        low, high = w.site.min(axis=1), w.site.max(axis=1)
        spot = (low + high) / 2 + 0.35 * (high - low) * np.stack([np.cos(turn), np.sin(turn)], -1)
        near = ((((w.position - spot[:, None]) / (high - low)[:, None]) ** 2).sum(-1)) < 0.09
        wanted.append(np.where(near, 0.95, np.where(w.bursting, np.minimum(1.5 * load, 1), 0.2 * load)).ravel())
        drawn.append(w.active.copy().ravel())
    p, x = np.concatenate(wanted), np.concatenate(drawn)
    for level in np.unique(np.round(p, 1)):
        some = np.round(p, 1) == level
        error = (x[some] - p[some]).sum() / max((p[some] * (1 - p[some])).sum(), 1e-9) ** 0.5
        assert abs(error) < 4.5, (level, error)
    assert x[p == 1.0].all() and 0.03 < (p == 0.95).mean() < 0.4
