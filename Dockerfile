# hybridalloc with MLflow and the solvers, on CPUs:
#   docker build -t hybridalloc .
#   docker run --rm hybridalloc step --example | docker run --rm -i hybridalloc step
#   docker run --rm -v "$PWD/work:/work" hybridalloc compare --sites synthetic
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/hybridalloc
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md LICENSE ./
COPY coordinator ./coordinator
COPY games ./games
COPY rl ./rl
COPY hybridalloc ./hybridalloc
RUN pip install --no-cache-dir -c constraints.txt '.[all,envs,export,route]'
ENV OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_CACHE_DIR=/var/cache/numba
RUN useradd --create-home user && mkdir -p /work /var/cache/numba && chown user /work /var/cache/numba
USER user
WORKDIR /work
# the kernels of a step are compiled once, here
RUN hybridalloc step --example | hybridalloc step > /dev/null
ENTRYPOINT ["hybridalloc"]
