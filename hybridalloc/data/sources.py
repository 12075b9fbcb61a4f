"""The registry of public data sets: addresses pinned to a commit, SHA-256, licence and citation."""

from __future__ import annotations

from dataclasses import dataclass

_RAW = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class DataFile:
    """One file: its name in a local folder, SHA-256 of its uncompressed content, and its addresses.

    `urls` are tried in order. They are empty for a table made from an upstream file (`note` says
    how), which only a local folder can supply.
    """

    name: str
    sha256: str
    urls: tuple[str, ...]
    note: str = ""

    @property
    def plain_name(self) -> str:
        """The upstream (uncompressed) file's name, which is what the cache holds."""
        return self.name.removesuffix(".gz")


@dataclass(frozen=True)
class Dataset:
    """A data set: its files, where it comes from, under which licence, and what to cite."""

    name: str
    title: str
    origin: str
    licence: str
    citation: str
    files: tuple[DataFile, ...]


_OPENB = f"{_RAW}/alibaba/clusterdata"
_OPENB_FOLDER = "cluster-trace-gpu-v2023/csv"

DATASETS = (
    Dataset(
        name="eua",
        title="125 base-station sites and 816 user positions in Melbourne's centre",
        origin="https://github.com/swinedge/eua-dataset (commit 61238e0)",
        licence="MIT",
        citation="Lai et al., Optimal Edge User Allocation in Edge Computing with Variable Sized Vector "
        "Bin Packing, ICSOC 2018",
        files=(
            DataFile(
                "site-optus-melbCBD.csv",
                "c1031a8ff0f110e179beeabfaea53d42c15f30b0daf6c6522e8f17789c3979fb",
                (f"{_RAW}/swinedge/eua-dataset/61238e0/edge-servers/site-optus-melbCBD.csv",),
            ),
            DataFile(
                "users-melbcbd-generated.csv",
                "4ab470ecc719b410f7505ca1362c2a32317c0f0a4c429b349ea34aaa7c2c03f0",
                (
                    f"{_RAW}/swinedge/eua-dataset/61238e0/users/users-melbcbd-generated.csv",
                    f"{_RAW}/PhuLai/eua-dataset/1127c646efd0225f1071fdf952c0335ded736f9a"
                    "/users/users-melbcbd-generated.csv",
                ),
            ),
        ),
    ),
    Dataset(
        name="openb",
        title="Alibaba's GPU cluster: 1,213 nodes with 6,212 GPUs, 8,152 pods",
        origin="https://github.com/alibaba/clusterdata, cluster-trace-gpu-v2023",
        licence="Apache-2.0 (of hkust-adsl/kubernetes-scheduler-simulator, which holds the same files)",
        citation="Weng et al., Beware of Fragmentation: Scheduling GPU-Sharing Workloads with "
        "Fragmentation Gradient Descent, USENIX ATC 2023",
        files=(
            DataFile(
                "openb_node_list_gpu_node.csv",
                "2beca64b4d3dfa342036a34b56a495c6cef9225db836c81f541282cb1df320b5",
                (f"{_OPENB}/50a91c7c74abe3b658188dc78ac1dd302970d40c/{_OPENB_FOLDER}/openb_node_list_gpu_node.csv",),
            ),
            DataFile(
                "openb_pod_list_default.csv",
                "1ee7ed79c27a3b0861cda8ddba86a004c6aba904caafa329a76ae93ca63834a8",
                (f"{_OPENB}/50a91c7c74abe3b658188dc78ac1dd302970d40c/{_OPENB_FOLDER}/openb_pod_list_default.csv",),
            ),
            DataFile(
                "openb_pod_list_gpushare100.csv",
                "12dbc07d6a49bf8641e2275a2ff5bf7be74b5df7d148d531e135b140b95f9a3d",
                (f"{_OPENB}/0c9677bb156ded9c63ca40d9aa54cd31d3e75061/{_OPENB_FOLDER}/openb_pod_list_gpushare100.csv",),
            ),
        ),
    ),
    Dataset(
        name="fgd",
        title="GPU allocation (%) of six published policies as demand arrives, 10 seeds",
        origin="https://github.com/hkust-adsl/kubernetes-scheduler-simulator (commit 8f3d641)",
        licence="Apache-2.0",
        citation="Weng et al., Beware of Fragmentation, USENIX ATC 2023",
        files=(
            DataFile(
                "published_gpu_allocation.csv",
                "ca95654359b94fe29978926b1bb90b81a4acdda058bbd548c95e5f26d0bb2722",
                (),
                note="a selection of rows and columns of that repository's "
                "experiments/analysis/expected_results/analysis_allo_discrete.csv",
            ),
        ),
    ),
    Dataset(
        name="azure_llm",
        title="19,366 requests to a conversation model in 58 minutes",
        origin="https://github.com/Azure/AzurePublicDataset",
        licence="CC-BY-4.0",
        citation="Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024",
        files=(
            DataFile(
                "AzureLLMInferenceTrace_conv.csv",
                "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
                (
                    f"{_RAW}/Azure/AzurePublicDataset/790921015d50dd6aae7f7e47f39ba0e235ad6b08"
                    "/data/AzureLLMInferenceTrace_conv.csv",
                ),
            ),
        ),
    ),
    Dataset(
        name="mooncake",
        title="12,031 requests in 59 minutes with the hashes of their prefix blocks",
        origin="https://github.com/kvcache-ai/Mooncake, FAST25-release/traces",
        licence="Apache-2.0",
        citation="Qin et al., Mooncake: Trading More Storage for Less Computation, FAST 2025",
        files=(
            DataFile(
                "conversation_trace.jsonl.gz",
                "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
                (
                    f"{_RAW}/kvcache-ai/Mooncake/a2a4b18ac537fd798d50e6e9f57031ce86419a37"
                    "/FAST25-release/traces/conversation_trace.jsonl",
                ),
            ),
        ),
    ),
    Dataset(
        name="gavel",
        title="Measured throughput of 83 training job types on three GPU types, and a trace of 2,000 jobs",
        origin="https://github.com/stanford-futuredata/gavel (commit c4fa400)",
        licence="MIT",
        citation="Narayanan et al., Heterogeneity-Aware Cluster Scheduling Policies for Deep Learning "
        "Workloads, OSDI 2020",
        files=(
            DataFile(
                "simulation_throughputs.json.gz",
                "17111f7295f03265fd9e5118d7eba31e3dd9d6e50a2e215c13ad3d3f91f74381",
                (f"{_RAW}/stanford-futuredata/gavel/c4fa400/scheduler/simulation_throughputs.json",),
            ),
            DataFile(
                "msr_seed0_ee9e8c.trace.gz",
                "ce629ae806113d60daa51dd9423030333a1abf45ee2a51c1013cdfdc49782a5c",
                (
                    f"{_RAW}/stanford-futuredata/gavel/3d57f4b33fc61da76c86cf688842c4d74a86a64e"
                    "/scheduler/traces/msr/seed=0/ee9e8c.trace",
                ),
            ),
        ),
    ),
    Dataset(
        name="simbench",
        title="A year of loads (53 profiles) and sun (8 sites) in steps of 15 minutes",
        origin="https://pypi.org/project/simbench 1.6.3, networks/1-complete_data-mixed-all-0-sw",
        licence="ODbL 1.0",
        citation="Meinecke et al., SimBench: A Benchmark Dataset of Electric Power Systems, Energies 2020",
        files=(
            DataFile(
                "profiles.npz",
                "12e0be53c94e769a75af9d4449514e7c2a9479226b626f1f98958222c82192d2",
                (),
                note="`pip install simbench`, then `python -m hybridalloc.data.simbench` makes it from the package",
            ),
        ),
    ),
)
