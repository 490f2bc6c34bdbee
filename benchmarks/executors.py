"""Evidences of 200 data here and on two workers of a Dask cluster on this machine.

    python -m benchmarks.executors --threads 1 --output docs/results/executors.json

``speedup`` is that of the clock on the wall. ``speedup of processors`` is what two free cores would
give: processor seconds here, by half of those of both workers and of the sender together. It leaves
out waiting, and other load on the machine hardly changes it. It can be above two, because the
workers keep memory that this process gives back and pages in anew.
"""

import time
from typing import Any

import dask
import distributed
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.timing import arguments, report
from pyro_tkam.infer import Evidence, log_evidences

NUM_DATA = 200
KEEP_MEMORY = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
}
"""Dask tells workers to give memory back at once, so that each large tensor is paged in anew."""


def model(x: Tensor) -> None:
    """A latent of ten coordinates and a datum of ten."""
    z = pyro.sample("z", dist.Normal(torch.zeros(10), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z.tanh(), 1.0).to_event(1), obs=x)


def evidences(data: Tensor, num_particles: int, executor: Any = None) -> list[Evidence]:
    """Estimate the evidence of each datum."""
    pyro.set_rng_seed(0)
    options: dict[str, Any] = {"method": "importance", "num_particles": num_particles}
    return log_evidences(model, data, executor=executor, **options)


def timed(*args: Any) -> tuple[list[float], float, float]:
    """Return values, seconds on the wall and seconds of this process."""
    wall, own = time.perf_counter(), time.process_time()
    values = [each.value for each in evidences(*args)]
    return values, time.perf_counter() - wall, time.process_time() - own


def main() -> None:
    """Measure, and write what came out."""
    options = arguments(__doc__)
    torch.manual_seed(0)
    data = torch.randn(NUM_DATA, 10)
    num_particles = 5_000 if options.short else 100_000
    evidences(data[:2], num_particles)
    here, wall, own = timed(data, num_particles)
    dask.config.set({"distributed.nanny.pre-spawn-environ": KEEP_MEMORY})
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
    )
    with cluster, distributed.Client(cluster) as client, client.get_executor() as executor:
        evidences(data[:4], num_particles, executor)
        before = client.run(time.process_time)
        there, dask_wall, sender = timed(data, num_particles, executor)
        after = client.run(time.process_time)
    workers = [after[worker] - before[worker] for worker in after]
    results = {
        "versions": {"dask": distributed.__version__},
        "evidences": NUM_DATA,
        "same to the bit": here == there,
        "seconds": {"here": wall, "dask": dask_wall},
        "processor seconds": {"here": own, "workers": workers, "sender": sender},
        "speedup": wall / dask_wall,
        "speedup of processors": 2 * own / (sum(workers) + sender),
    }
    report(results, options.output)


if __name__ == "__main__":
    main()
